//! Tokens that the facilitator of the Coinbase Developer Platform asks for: a JSON Web Token per
//! request, signed with an API key.
//!
//! It reads a key and signs. Where the key is stored and which request it signs for is a matter of
//! [`super::facilitator`].

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

/// Time for which a token is valid, in seconds: the most that the platform accepts.
const LIFETIME: u64 = 120;
/// Algorithm identifier of a P-256 key, behind the version of PKCS #8.
const P256: &[u8] = b"\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

/// An API key that cannot be used. The text says what it should be, and shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CdpKeyError {
    #[error("is not JSON with id and secret")]
    Form,
    #[error("holds a secret that is neither a base64 Ed25519 key nor a PEM P-256 key")]
    Secret,
    #[error("holds a secret that does not sign")]
    Signing,
}

/// An API key as it is stored; also in the form in which the platform hands it out.
#[derive(Deserialize)]
struct StoredCdpKey {
    #[serde(alias = "name")]
    id: String,
    #[serde(alias = "privateKey")]
    secret: String,
}

/// An API key.
pub(super) struct CdpKey {
    id: String,
    pair: KeyPair,
}

enum KeyPair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl CdpKey {
    /// Reads a key.
    pub(super) fn read(stored: &[u8]) -> Result<Self, CdpKeyError> {
        let stored: StoredCdpKey = serde_json::from_slice(stored).map_err(|_| CdpKeyError::Form)?;
        let secret = Zeroizing::new(stored.secret);
        let secret = secret.trim();
        let pair = if secret.starts_with("-----BEGIN") {
            p256(secret).map(KeyPair::P256)
        } else {
            ed25519(secret).map(KeyPair::Ed25519)
        };
        Ok(Self {
            id: stored.id,
            pair: pair.ok_or(CdpKeyError::Secret)?,
        })
    }

    /// A token for one request, like `POST api.example/x402/verify`, at this Unix time.
    pub(super) fn token(&self, request: &str, now: u64) -> Result<String, CdpKeyError> {
        let algorithm = match self.pair {
            KeyPair::Ed25519(_) => "EdDSA",
            KeyPair::P256(_) => "ES256",
        };
        let header = json!({
            "alg": algorithm, "typ": "JWT", "kid": self.id,
            "nonce": HEXLOWER.encode(&rand::random::<[u8; 16]>()),
        });
        // Its libraries send `uris`, its documentation names `uri`.
        let claims = json!({
            "sub": self.id, "iss": "cdp", "iat": now, "nbf": now, "exp": now + LIFETIME,
            "uri": request, "uris": [request],
        });
        let [header, claims] =
            [header, claims].map(|part| BASE64URL_NOPAD.encode(part.to_string().as_bytes()));
        let message = format!("{header}.{claims}");
        let signature = match &self.pair {
            KeyPair::Ed25519(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            KeyPair::P256(pair) => pair
                .sign(&SystemRandom::new(), message.as_bytes())
                .map_err(|_| CdpKeyError::Signing)?
                .as_ref()
                .to_vec(),
        };
        Ok(format!("{message}.{}", BASE64URL_NOPAD.encode(&signature)))
    }
}

/// Seed and public key, 32 bytes each.
fn ed25519(secret: &str) -> Option<Ed25519KeyPair> {
    let bytes = Zeroizing::new(BASE64.decode(secret.as_bytes()).ok()?);
    let (seed, public) = bytes.split_at_checked(32)?;
    Ed25519KeyPair::from_seed_and_public_key(seed, public).ok()
}

/// A key in PKCS #8, or in SEC 1 as OpenSSL writes it.
fn p256(secret: &str) -> Option<EcdsaKeyPair> {
    let pkcs8 = match PrivateKeyDer::from_pem_slice(secret.as_bytes()).ok()? {
        PrivateKeyDer::Pkcs8(key) => Zeroizing::new(key.secret_pkcs8_der().to_vec()),
        PrivateKeyDer::Sec1(key) => {
            let key = der(0x04, key.secret_sec1_der())?;
            der(0x30, &Zeroizing::new([P256, &key[..]].concat()))?
        }
        _ => return None,
    };
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8, &SystemRandom::new()).ok()
}

/// A DER value of at most 255 bytes.
fn der(tag: u8, value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let length = u8::try_from(value.len()).ok()?;
    let head: &[u8] = if length < 0x80 {
        &[tag, length]
    } else {
        &[tag, 0x81, length]
    };
    Some(Zeroizing::new([head, value].concat()))
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, KeyPair as _, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        let text = BASE64.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    /// A new P-256 key in PKCS #8, and in SEC 1 with the parameters that OpenSSL adds.
    fn p256_secrets() -> [String; 2] {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        let pkcs8 = pkcs8.as_ref();
        let (private, public) = (&pkcs8[36..68], &pkcs8[pkcs8.len() - 65..]);
        let sec1 = [
            b"\x02\x01\x01\x04\x20",
            private,
            b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\xa1\x44\x03\x42\x00",
            public,
        ];
        let sec1 = der(0x30, &sec1.concat()).unwrap();
        [pem("PRIVATE KEY", pkcs8), pem("EC PRIVATE KEY", &sec1)]
    }

    /// The key of the first test vector of RFC 8032.
    fn ed25519_secret() -> String {
        let hex = concat!(
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        );
        BASE64.encode(&HEXLOWER.decode(hex.as_bytes()).unwrap())
    }

    fn key(secret: &str) -> Result<CdpKey, CdpKeyError> {
        CdpKey::read(
            json!({ "id": "key-1", "secret": secret })
                .to_string()
                .as_bytes(),
        )
    }

    #[test]
    fn token_names_key_and_request_and_is_signed() {
        let [pkcs8, sec1] = p256_secrets();
        for (secret, algorithm) in [
            (ed25519_secret(), "EdDSA"),
            (pkcs8, "ES256"),
            (sec1, "ES256"),
        ] {
            let key = key(&secret).unwrap();
            let token = key.token("POST api.example/x402/verify", 1000).unwrap();
            let parts: Vec<&str> = token.split('.').collect();
            let part = |at: usize| BASE64URL_NOPAD.decode(parts[at].as_bytes()).unwrap();
            let header: Value = serde_json::from_slice(&part(0)).unwrap();
            assert_eq!(
                (&header["alg"], &header["kid"]),
                (&json!(algorithm), &json!("key-1"))
            );
            assert_eq!(header["nonce"].as_str().unwrap().len(), 32);
            let claims: Value = serde_json::from_slice(&part(1)).unwrap();
            let expected = json!({
                "sub": "key-1", "iss": "cdp", "iat": 1000, "nbf": 1000, "exp": 1120,
                "uri": "POST api.example/x402/verify", "uris": ["POST api.example/x402/verify"],
            });
            assert_eq!(claims, expected);
            let message = format!("{}.{}", parts[0], parts[1]);
            let (verifier, public): (&dyn ring::signature::VerificationAlgorithm, &[u8]) =
                match &key.pair {
                    KeyPair::Ed25519(pair) => (&ED25519, pair.public_key().as_ref()),
                    KeyPair::P256(pair) => (&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()),
                };
            let public = UnparsedPublicKey::new(verifier, public);
            public.verify(message.as_bytes(), &part(2)).unwrap();
        }
    }

    #[test]
    fn key_is_read_in_the_form_of_the_platform() {
        let handed_out = json!({ "name": "key-2", "privateKey": ed25519_secret(), "other": 1 });
        let key = CdpKey::read(handed_out.to_string().as_bytes()).unwrap();
        assert_eq!(key.id, "key-2");
    }

    #[test]
    fn key_of_another_form_is_refused() {
        assert_eq!(CdpKey::read(b"{}").err(), Some(CdpKeyError::Form));
        let long = pem("EC PRIVATE KEY", &[7; 300]);
        let certificate = pem("CERTIFICATE", &[0]);
        let rsa = pem("RSA PRIVATE KEY", &[0]);
        for secret in [
            "",
            "AA==",
            "not base64",
            &long,
            &certificate,
            &rsa,
            "-----BEGIN",
        ] {
            assert_eq!(key(secret).err(), Some(CdpKeyError::Secret), "{secret}");
        }
    }
}
