//! The one write that needs no leadership: it puts a SignerLedger in quarantine.
//!
//! A replica that notices a rollback may be the only one that remembers, and it may never lead. The
//! write can only stop: whatever the caller passes, nothing but the ledger's state changes. It is
//! conditional on the version that was read. What proves a rollback is decided in
//! [`crate::ledger::rollback`].

use kube::api::PostParams;
use kube::{Client, Resource, ResourceExt};

use super::Error;
use super::write::FIELD_MANAGER;
use crate::api::{LedgerState, SignerLedger, SignerLedgerSpec};
use crate::leader::fence::StopsOnly;

/// Puts ledgers in quarantine.
#[derive(Clone)]
pub struct QuarantineWriter {
    client: Client,
}

impl QuarantineWriter {
    /// A writer that uses this client, whose fence may be closed.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Puts a ledger in quarantine, if its resource version is still the one that was read. Only
    /// reason and history hash are taken from `quarantined`.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the ledger was modified since it was read.
    pub async fn quarantine(
        &self,
        read: &SignerLedger,
        quarantined: SignerLedgerSpec,
    ) -> Result<SignerLedger, Error> {
        debug_assert!(
            read.metadata.resource_version.is_some(),
            "a replace without a resource version is unconditional"
        );
        let ledger = SignerLedger {
            metadata: read.metadata.clone(),
            spec: SignerLedgerSpec {
                state: LedgerState::Quarantine,
                quarantine: quarantined.quarantine,
                history_hash: quarantined.history_hash,
                ..read.spec.clone()
            },
        };
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let body = serde_json::to_vec(&ledger).map_err(kube::Error::SerdeError)?;
        let mut request = kube::core::Request::new(SignerLedger::url_path(&(), None))
            .replace(&ledger.name_any(), &parameters, body)
            .map_err(kube::Error::BuildRequest)?;
        request.extensions_mut().insert(StopsOnly);
        Ok(self.client.request(request).await?)
    }
}
