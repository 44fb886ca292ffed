//! Bounds: what the adversary may do in one search, and who takes part.
//!
//! Values only. [`super::world`] knows what a fault does.

/// What the adversary can do, each as often as the bounds allow. It can also stop and crash
/// replicas, and include or keep back anything ever sent, without a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Remove the latest block, unless it is final.
    Reorg,
    /// Let an included registration revert.
    Revert,
    /// Give an agent to a signer.
    Gift,
    /// Use the key of a signer for another transaction.
    ForeignUse,
    /// Delete an offer.
    DeleteOffer,
    /// Create a deleted offer again.
    CreateOffer,
    /// Raise the edition of an offer.
    RaiseEdition,
    /// Change the order of the signers.
    Rotate,
    /// Delete an offer, and create it again for the other IdentityRegistry.
    MoveOffer,
    /// Raise the base fee.
    RaiseFee,
    /// Take a backup of ledgers and records.
    Backup,
    /// Replace a ledger by the one of the backup, or delete it if the backup has none.
    RestoreLedger,
    /// The same for a record.
    RestoreRecord,
    /// Remove the status of an IdentityRegistry.
    DropStatus,
    /// Leave logs out of an answer.
    OmitLogs,
    /// Let nothing be signed for the first offer any more, or let it be signed for again.
    Refuse,
}

/// Number of kinds of fault.
pub const FAULTS: usize = 16;

/// A feature of the operator, or an event in its life, that configurations combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A registration is included and reverts.
    Reverted,
    /// An offer is deleted and created again.
    Tombstone,
    /// The edition of an offer is raised.
    Edition,
    /// The first signer changes.
    Rotation,
    /// Two IdentityRegistries of one contract.
    Registries,
    /// A transaction is replaced by one with higher fees.
    FeeBump,
    /// Something else uses the key of a signer.
    ForeignUse,
    /// Nothing can be signed for an offer, and its nonce is filled.
    Filler,
    /// Agents that strangers give to a signer.
    Gift,
    /// A ledger that is older than the records.
    OlderLedger,
    /// Records that are older than the ledger.
    OlderRecords,
    /// A registry that has lost its status.
    NoStatus,
}

/// All features.
pub const FEATURES: [Feature; 12] = [
    Feature::Reverted,
    Feature::Tombstone,
    Feature::Edition,
    Feature::Rotation,
    Feature::Registries,
    Feature::FeeBump,
    Feature::ForeignUse,
    Feature::Filler,
    Feature::Gift,
    Feature::OlderLedger,
    Feature::OlderRecords,
    Feature::NoStatus,
];

impl Feature {
    /// Short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reverted => "reverted",
            Self::Tombstone => "tombstone",
            Self::Edition => "edition",
            Self::Rotation => "rotation",
            Self::Registries => "registries",
            Self::FeeBump => "fee-bump",
            Self::ForeignUse => "foreign-use",
            Self::Filler => "filler",
            Self::Gift => "gift",
            Self::OlderLedger => "older-ledger",
            Self::OlderRecords => "older-records",
            Self::NoStatus => "no-status",
        }
    }

    /// What it is, in words.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Reverted => "a registration is included and reverts",
            Self::Tombstone => "an offer is deleted and created again",
            Self::Edition => "the edition of an offer is raised",
            Self::Rotation => "the first signer changes, there and back",
            Self::Registries => "an offer moves between two registries of one contract",
            Self::FeeBump => "the base fee rises above a signed fee",
            Self::ForeignUse => "something else uses a signer's key (R6, R9)",
            Self::Filler => "nothing can be signed for an offer, and its nonce is filled (R8)",
            Self::Gift => "strangers give agents to a signer",
            Self::OlderLedger => "partial restore: a ledger is older than the records, or gone",
            Self::OlderRecords => "partial restore: records are older than the ledger, or gone",
            Self::NoStatus => "a registry loses its status, and with it the markers",
        }
    }

    /// The faults that make it, and how often each may happen.
    const fn faults(self) -> &'static [(Fault, u8)] {
        match self {
            Self::Reverted => &[(Fault::Revert, 1)],
            Self::Tombstone => &[(Fault::DeleteOffer, 1), (Fault::CreateOffer, 1)],
            Self::Edition => &[(Fault::RaiseEdition, 1)],
            Self::Rotation => &[(Fault::Rotate, 2)],
            Self::Registries => &[(Fault::MoveOffer, 1)],
            Self::FeeBump => &[(Fault::RaiseFee, 1)],
            Self::ForeignUse => &[(Fault::ForeignUse, 1)],
            Self::Filler => &[(Fault::Refuse, 2)],
            Self::Gift => &[(Fault::Gift, 1)],
            Self::OlderLedger => &[(Fault::Backup, 1), (Fault::RestoreLedger, 1)],
            Self::OlderRecords => &[(Fault::Backup, 1), (Fault::RestoreRecord, 1)],
            Self::NoStatus => &[(Fault::DropStatus, 1)],
        }
    }
}

/// The bounds of one search.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Short name.
    pub name: String,
    /// What it explores, in words.
    pub about: String,
    /// Number of offers, 1 or 2.
    pub offers: u8,
    /// Number of replicas.
    pub replicas: u8,
    /// Whether both IdentityRegistries exist.
    pub two_registries: bool,
    /// Whether the ledgers are active in the beginning; otherwise they are born.
    pub born: bool,
    /// Whether the first account has registered the first offer's agent before, with another URI.
    pub legacy: bool,
    /// Whether replicas run on while a ledger is restored; otherwise all of them are restarted.
    pub online: bool,
    /// Whether a ledger is rolled back only if its account has sent more than what is restored has
    /// allocated. If the records are lost as well, nothing else shows the rollback.
    pub counted: bool,
    /// Whether a replica remembers the ledgers that it has read.
    pub remembers: bool,
    /// Whether no nonce may be allocated to a retired key from the write of its record on;
    /// otherwise from the end of its retirement on.
    pub strict: bool,
    /// How often each fault may happen.
    pub limits: [u8; FAULTS],
    /// Whether the search checks that every state can reach its goal.
    pub liveness: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            name: "base".into(),
            about: "two offers, nothing but crashes and a reorg".into(),
            offers: 2,
            replicas: 2,
            two_registries: false,
            born: true,
            legacy: false,
            online: false,
            counted: false,
            remembers: false,
            strict: false,
            limits: [0; FAULTS],
            liveness: true,
        }
    }
}

impl Bounds {
    /// The bounds with a fault that may happen this often.
    #[must_use]
    pub fn with(mut self, fault: Fault, times: u8) -> Self {
        self.limits[fault as usize] = self.limits[fault as usize].max(times);
        self
    }

    /// The bounds with a name.
    #[must_use]
    pub fn named(self, name: &str, about: &str) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            ..self
        }
    }

    fn feature(mut self, feature: Feature) -> Self {
        for (fault, times) in feature.faults() {
            self = self.with(*fault, *times);
        }
        self.two_registries |= feature == Feature::Registries;
        self
    }

    /// The bounds in one word: offers, replicas, and each fault that may happen.
    #[must_use]
    pub fn summary(&self) -> String {
        let faults: u8 = self.limits.iter().sum();
        let birth = if self.born { "" } else { " birth" };
        format!("{}o {}r {faults}f{birth}", self.offers, self.replicas)
    }
}

/// One search per feature.
#[must_use]
pub fn singles() -> Vec<Bounds> {
    let base = Bounds::default().with(Fault::Reorg, 1);
    let mut all = vec![base.clone()];
    all.push(
        Bounds {
            born: false,
            offers: 1,
            ..base.clone()
        }
        .named("birth", "the ledger is born"),
    );
    all.extend(FEATURES.map(|feature| {
        // Two editions are two keys, and two signers multiply the states.
        let offers = match feature {
            Feature::Edition | Feature::Rotation | Feature::Registries => 1,
            _ => 2,
        };
        let bounds = Bounds {
            offers,
            ..base.clone()
        }
        .feature(feature);
        bounds.named(feature.name(), feature.about())
    }));
    all
}

/// Configurations that one variant or one finding needs.
#[must_use]
pub fn others() -> Vec<Bounds> {
    let one = Bounds {
        offers: 1,
        ..Bounds::default()
    };
    vec![
        Bounds {
            legacy: true,
            born: false,
            ..one.clone()
        }
        .with(Fault::Reorg, 1)
        .named(
            "used-wallet",
            "the signer has an agent whose URI names no key",
        ),
        one.clone()
            .feature(Feature::OlderRecords)
            .with(Fault::OmitLogs, 1)
            .named(
                "omitted-logs",
                "records are lost, and an endpoint leaves logs out",
            ),
        Bounds {
            offers: 2,
            replicas: 1,
            remembers: true,
            ..one.clone()
        }
        .with(Fault::RestoreLedger, 1)
        .with(Fault::RestoreRecord, 2)
        .named(
            "memory",
            "everything is restored, and one replica remembers the ledger",
        ),
        Bounds {
            replicas: 3,
            ..one.clone()
        }
        .with(Fault::Reorg, 1)
        .named("three-replicas", "one offer, three replicas"),
        Bounds {
            offers: 2,
            counted: true,
            ..one.clone()
        }
        .feature(Feature::ForeignUse)
        .with(Fault::RestoreLedger, 1)
        .with(Fault::RestoreRecord, 1)
        .named(
            "foreign-use-restored",
            "something else uses the key, a ledger is rolled back, and a record is deleted",
        ),
        one.clone().with(Fault::Rotate, 2).named(
            "small-rotation",
            "one offer, the signer changes there and back",
        ),
        one.clone()
            .with(Fault::Rotate, 1)
            .with(Fault::RestoreRecord, 1)
            .named(
                "rotation+lost-record",
                "the signer changes, and a record is deleted",
            ),
        one.clone()
            .with(Fault::Rotate, 1)
            .with(Fault::RestoreLedger, 1)
            .with(Fault::RestoreRecord, 1)
            .named(
                "rotation+lost-both",
                "the signer changes, a ledger is rolled back, and a record is deleted",
            ),
        Bounds {
            counted: true,
            ..one.clone()
        }
        .feature(Feature::ForeignUse)
        .with(Fault::Rotate, 1)
        .with(Fault::RestoreLedger, 1)
        .with(Fault::RestoreRecord, 1)
        .named(
            "rotation+lost-ledger",
            "something else uses the key, a ledger is rolled back, a record is deleted, and the \
             signer changes",
        ),
        Bounds { offers: 2, ..one }
            .with(Fault::RestoreLedger, 1)
            .with(Fault::DropStatus, 1)
            .named(
                "lost-ledger",
                "a ledger is rolled back, and the registry has no status",
            ),
    ]
}

/// Configurations that show a known violation by themselves.
#[must_use]
pub fn findings() -> Vec<Bounds> {
    let one = Bounds {
        offers: 1,
        ..Bounds::default()
    };
    vec![
        Bounds {
            strict: true,
            ..one.clone()
        }
        .feature(Feature::Tombstone)
        .named(
            "retiring-race",
            "a retired key gets no nonce from the write of its record on",
        ),
        Bounds {
            online: true,
            offers: 2,
            ..one.clone()
        }
        .with(Fault::RestoreLedger, 1)
        .with(Fault::Backup, 1)
        .named(
            "online-restore",
            "a ledger is rolled back while replicas run on",
        ),
        Bounds { offers: 2, ..one }
            .with(Fault::RestoreLedger, 1)
            .with(Fault::RestoreRecord, 1)
            .named(
                "lost-both",
                "two offers, a ledger is rolled back, and a record is deleted",
            ),
    ]
}

/// The invariant that the shipped core is known to violate within these bounds.
#[must_use]
pub fn known_violation(name: &str) -> Option<&'static str> {
    match name {
        "retiring-race" => Some("L4"),
        // Nothing that is left shows the lost transaction: the README names this limit.
        "lost-both" | "rotation+lost-both" => Some("L1"),
        // Four faults together leave an offer that waits without being told why.
        "rotation+lost-ledger" => Some("L5"),
        _ => None,
    }
}

/// The bounds of that name.
#[must_use]
pub fn bounds(name: &str) -> Option<Bounds> {
    let mut all = singles()
        .into_iter()
        .chain(others())
        .chain(pairs())
        .chain(findings());
    all.find(|bounds| bounds.name == name)
}

/// One search per pair of features.
#[must_use]
pub fn pairs() -> Vec<Bounds> {
    let mut all = Vec::new();
    for (at, one) in FEATURES.iter().enumerate() {
        for other in &FEATURES[at + 1..] {
            let has_signers = |feature| matches!(feature, Feature::Rotation | Feature::Registries);
            // A nonce is filled only if another agent waits for it, of another offer or edition.
            let fills = [*one, *other].contains(&Feature::Filler);
            let is_edition = [*one, *other].contains(&Feature::Edition);
            let reorgs = u8::from(!has_signers(*one) && !has_signers(*other) && !fills);
            let bounds = Bounds {
                offers: 1 + u8::from(fills && !is_edition),
                ..Bounds::default()
            }
            .with(Fault::Reorg, reorgs);
            let mut bounds = bounds.feature(*one).feature(*other);
            // More accounts and two offers: the states would not fit into the memory.
            if fills && (has_signers(*one) || has_signers(*other)) {
                let [refuse, rotate] = [Fault::Refuse, Fault::Rotate].map(|fault| fault as usize);
                bounds.limits[refuse] = 1;
                bounds.limits[rotate] = bounds.limits[rotate].min(1);
            }
            all.push(bounds.named(&format!("{}+{}", one.name(), other.name()), ""));
        }
    }
    all
}
