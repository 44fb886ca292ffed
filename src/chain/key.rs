//! Reads a private key from the bytes of a Secret: hex, raw bytes, or a JSON keystore (Web3 Secret
//! Storage, version 3). Pure.
//!
//! People store keys in many forms; each is read, or refused by its name. No error repeats what was
//! read. The bytes of a key are zeroed when they are dropped; [`super::transaction`] alone turns
//! them into a signer.

use aes::cipher::{KeyIvInit, StreamCipher};
use alloy::hex;
use alloy::primitives::{Address, Keccak256};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

/// Memory that decrypting a keystore may take, in bytes.
const MAX_MEMORY: u64 = 64 * 1024 * 1024;
/// Rounds of PBKDF2 that decrypting a keystore may take.
const MAX_ROUNDS: u32 = 10_000_000;
/// Parallelization that scrypt may have: the rounds are computed one after the other.
const MAX_PARALLEL: u64 = 16;
/// UTF-8 byte order mark, which some editors write.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];
const KEY_BYTES: usize = 32;

/// The bytes of a private key.
pub type KeyBytes = Zeroizing<[u8; KEY_BYTES]>;

/// Why a private key cannot be used. No variant repeats what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("it is empty")]
    Empty,
    #[error("it is neither text nor 32 raw bytes: store the key as 64 hex digits in UTF-8")]
    NotText,
    #[error("it is a list of words: store the private key of the account, as 64 hex digits")]
    Mnemonic,
    #[error("it is an address: store the private key of the account, as 64 hex digits")]
    IsAddress,
    #[error("it has {digits} hex digits: a private key has 64")]
    WrongLength { digits: usize },
    #[error("it is no private key in hex: store it as 64 hex digits")]
    Malformed,
    #[error("it is no number that can be a private key")]
    OutOfRange,
    #[error("it is a JSON keystore: set passwordSecretRef to the Secret of its password")]
    PasswordMissing,
    #[error(
        "the password does not open the JSON keystore: correct the Secret of passwordSecretRef"
    )]
    PasswordWrong,
    #[error("it is JSON, and no keystore of version 3 ({0})")]
    NotAKeystore(&'static str),
    #[error(
        "decrypting the JSON keystore takes {mebibytes} MiB, and 64 are allowed: rewrite it, for \
         example with `geth account update --lightkdf`"
    )]
    TooCostly { mebibytes: u64 },
    /// The key belongs to another account.
    #[error("the key belongs to {actual}, not to {expected}")]
    OtherAccount {
        /// Account that the spec names.
        expected: Address,
        /// Account of the key.
        actual: Address,
    },
}

/// Reads a key. `password` opens a JSON keystore and is not used for another form.
///
/// # Errors
/// What the bytes are instead, and what to store.
pub fn read_key(secret: &[u8], password: Option<&[u8]>) -> Result<KeyBytes, KeyError> {
    if let Ok(raw) = <[u8; KEY_BYTES]>::try_from(secret)
        && !raw.is_ascii()
    {
        return Ok(Zeroizing::new(raw));
    }
    let text = secret.strip_prefix(BYTE_ORDER_MARK).unwrap_or(secret);
    let text = std::str::from_utf8(text).map_err(|_| KeyError::NotText)?;
    let text = text.trim();
    match text.as_bytes() {
        [] => Err(KeyError::Empty),
        [b'{', ..] => decrypt(text, password),
        _ => from_hex(text),
    }
}

fn from_hex(text: &str) -> Result<KeyBytes, KeyError> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    if digits.split_whitespace().count() >= 12 {
        return Err(KeyError::Mnemonic);
    }
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let mut key = KeyBytes::default();
    let decoded = hex::decode_to_slice(digits, key.as_mut());
    match (decoded, is_hex, digits.len()) {
        (Ok(()), ..) => Ok(key),
        (Err(_), false, _) => Err(KeyError::Malformed),
        (Err(_), true, 40) => Err(KeyError::IsAddress),
        (Err(_), true, digits) => Err(KeyError::WrongLength { digits }),
    }
}

/// A JSON keystore, as far as it is read. Field names may be written in any case.
#[derive(Deserialize)]
struct Keystore {
    #[serde(alias = "Crypto")]
    crypto: Crypto,
    version: u64,
}

#[derive(Deserialize)]
struct Crypto {
    cipher: String,
    ciphertext: String,
    cipherparams: CipherParams,
    kdf: String,
    kdfparams: Value,
    mac: String,
}

#[derive(Deserialize)]
struct CipherParams {
    iv: String,
}

fn decrypt(text: &str, password: Option<&[u8]>) -> Result<KeyBytes, KeyError> {
    let Keystore { crypto, version } =
        serde_json::from_str(text).map_err(|_| KeyError::NotAKeystore("fields"))?;
    if version != 3 {
        return Err(KeyError::NotAKeystore("version"));
    }
    if crypto.cipher != "aes-128-ctr" {
        return Err(KeyError::NotAKeystore("cipher"));
    }
    let iv: [u8; 16] = bytes(&crypto.cipherparams.iv, "iv")?
        .try_into()
        .map_err(|_| KeyError::NotAKeystore("iv"))?;
    let ciphertext = bytes(&crypto.ciphertext, "ciphertext")?;
    let ciphertext: [u8; KEY_BYTES] = ciphertext
        .try_into()
        .map_err(|_| KeyError::NotAKeystore("ciphertext"))?;
    let derivation = Derivation::read(&crypto.kdf, &crypto.kdfparams)?;
    let password = password.ok_or(KeyError::PasswordMissing)?;
    let expected = bytes(&crypto.mac, "mac")?;
    derivation.derive(password).and_then(|derived| {
        let mac_key = &derived[16..];
        let mut mac = Keccak256::new();
        mac.update(mac_key);
        mac.update(ciphertext);
        if mac.finalize().as_slice() != expected {
            return Err(KeyError::PasswordWrong);
        }
        let mut key = Zeroizing::new(ciphertext);
        let mut cipher_key = Zeroizing::new([0; 16]);
        cipher_key.copy_from_slice(&derived[..16]);
        let mut cipher = ctr::Ctr128BE::<aes::Aes128>::new(&(*cipher_key).into(), &iv.into());
        cipher.apply_keystream(key.as_mut());
        Ok(key)
    })
}

fn bytes(digits: &str, field: &'static str) -> Result<Vec<u8>, KeyError> {
    hex::decode(digits).map_err(|_| KeyError::NotAKeystore(field))
}

/// How the password becomes a key.
enum Derivation {
    Scrypt {
        params: scrypt::Params,
        salt: Vec<u8>,
    },
    Pbkdf2 {
        rounds: u32,
        salt: Vec<u8>,
    },
}

impl Derivation {
    /// Reads the parameters, and refuses those that take too much before anything is allocated.
    fn read(kdf: &str, params: &Value) -> Result<Self, KeyError> {
        let number = |field: &'static str| {
            params
                .get(field)
                .and_then(Value::as_u64)
                .ok_or(KeyError::NotAKeystore(field))
        };
        let salt = params.get("salt").and_then(Value::as_str);
        let salt = bytes(salt.ok_or(KeyError::NotAKeystore("salt"))?, "salt")?;
        if number("dklen")? != 32 {
            return Err(KeyError::NotAKeystore("dklen"));
        }
        match kdf {
            "scrypt" => {
                let (n, r, p) = (number("n")?, number("r")?, number("p")?);
                let memory = n.saturating_mul(r).saturating_mul(128);
                if memory > MAX_MEMORY {
                    let mebibytes = memory.div_ceil(1 << 20);
                    return Err(KeyError::TooCostly { mebibytes });
                }
                // It multiplies the time and not the memory.
                if p > MAX_PARALLEL {
                    return Err(KeyError::NotAKeystore("p"));
                }
                let log_n = n.checked_ilog2().filter(|log_n| 1 << log_n == n);
                let params = log_n
                    .zip(u32::try_from(r).ok().zip(u32::try_from(p).ok()))
                    .and_then(|(log_n, (r, p))| {
                        let log_n = u8::try_from(log_n).unwrap_or(u8::MAX);
                        scrypt::Params::new(log_n, r, p, 32).ok()
                    });
                let params = params.ok_or(KeyError::NotAKeystore("kdfparams"))?;
                Ok(Self::Scrypt { params, salt })
            }
            "pbkdf2" => {
                if params.get("prf").and_then(Value::as_str) != Some("hmac-sha256") {
                    return Err(KeyError::NotAKeystore("prf"));
                }
                let rounds = u32::try_from(number("c")?).ok();
                let rounds = rounds.filter(|rounds| (1..=MAX_ROUNDS).contains(rounds));
                let rounds = rounds.ok_or(KeyError::NotAKeystore("c"))?;
                Ok(Self::Pbkdf2 { rounds, salt })
            }
            _ => Err(KeyError::NotAKeystore("kdf")),
        }
    }

    fn derive(&self, password: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let mut derived = Zeroizing::new([0; 32]);
        match self {
            Self::Scrypt { params, salt } => {
                let made = scrypt::scrypt(password, salt, params, derived.as_mut());
                made.map(|()| derived)
                    .or(Err(KeyError::NotAKeystore("kdfparams")))
            }
            Self::Pbkdf2 { rounds, salt } => {
                pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password, salt, *rounds, derived.as_mut());
                Ok(derived)
            }
        }
    }
}

/// The password as people store it: a line break at the end is not part of it.
#[must_use]
pub fn password_of(secret: &[u8]) -> &[u8] {
    let line = secret.strip_suffix(b"\n").unwrap_or(secret);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Key, password and parameters of the test vectors of the Web3 Secret Storage definition
    /// (ethereum.org, "Web3 Secret Storage").
    const KEY: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
    const PASSWORD: &[u8] = b"testpassword";

    fn pbkdf2() -> Value {
        json!({
            "crypto": {
                "cipher": "aes-128-ctr",
                "cipherparams": { "iv": "6087dab2f9fdbbfaddc31a909735c1e6" },
                "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
                "kdf": "pbkdf2",
                "kdfparams": {
                    "c": 262_144,
                    "dklen": 32,
                    "prf": "hmac-sha256",
                    "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"
                },
                "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"
            },
            "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
            "version": 3
        })
    }

    /// A keystore of geth with an empty password (`accounts/keystore/testdata`), and its key.
    fn scrypt() -> Value {
        json!({
            "address": "45dea0fb0bba44f4fcf290bba71fd57d7117cbb8",
            "crypto": {
                "cipher": "aes-128-ctr",
                "ciphertext": "b87781948a1befd247bff51ef4063f716cf6c2d3481163e9a8f42e1f9bb74145",
                "cipherparams": { "iv": "dc4926b48a105133d2f16b96833abf1e" },
                "kdf": "scrypt",
                "kdfparams": {
                    "dklen": 32, "n": 2, "p": 1, "r": 8,
                    "salt": "004244bbdc51cadda545b1cfa43cff9ed2ae88e08c61f1479dbb45410722f8f0"
                },
                "mac": "39990c1684557447940d4c69e06b1b82b2aceacb43f284df65c956daf3046b85"
            },
            "id": "ce541d8d-c79b-40f8-9f8c-20f59616faba",
            "version": 3
        })
    }

    fn read(secret: &[u8]) -> Result<String, KeyError> {
        read_key(secret, None).map(|key| hex::encode(*key))
    }

    fn open(keystore: &Value, password: &[u8]) -> Result<String, KeyError> {
        let text = keystore.to_string();
        read_key(text.as_bytes(), Some(password)).map(|key| hex::encode(*key))
    }

    #[test]
    fn key_in_hex_is_read_however_it_was_saved() {
        let upper = KEY.to_uppercase();
        for text in [
            KEY.to_owned(),
            format!("0x{KEY}"),
            format!("0X{upper}"),
            format!("\u{feff}{KEY}\r\n"),
            format!("  {KEY}\n\n"),
        ] {
            assert_eq!(read(text.as_bytes()).as_deref(), Ok(KEY), "{text:?}");
        }
        let raw = hex::decode(KEY).unwrap();
        assert_eq!(read(&raw).as_deref(), Ok(KEY));
    }

    #[test]
    fn other_content_is_refused_by_its_name() {
        let address = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
        let utf16: Vec<u8> = format!("\u{feff}{KEY}")
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let words = "test test test test test test test test test test test junk";
        for (secret, error) in [
            (&b" \n"[..], KeyError::Empty),
            (&utf16, KeyError::NotText),
            (words.as_bytes(), KeyError::Mnemonic),
            (address.as_bytes(), KeyError::IsAddress),
            (b"0x1234", KeyError::WrongLength { digits: 4 }),
            (&KEY.as_bytes()[1..], KeyError::WrongLength { digits: 63 }),
            (b"not a key", KeyError::Malformed),
            (&[b'g'; 32], KeyError::Malformed),
            (b"{}", KeyError::NotAKeystore("fields")),
        ] {
            assert_eq!(read(secret), Err(error));
            let message = error.to_string();
            assert!(!message.contains("1234") && !message.contains("junk"));
        }
    }

    #[test]
    fn keystore_of_either_kind_is_opened_with_its_password() {
        for (keystore, password) in [(pbkdf2(), PASSWORD), (scrypt(), b"")] {
            let key = open(&keystore, password).unwrap();
            assert!(keystore["address"].is_string() || key == KEY);
            let mut crypto = keystore.clone();
            crypto["Crypto"] = crypto["crypto"].take();
            crypto.as_object_mut().unwrap().remove("crypto");
            assert_eq!(open(&crypto, password), Ok(key));
            let text = keystore.to_string();
            let opened = |password| read_key(text.as_bytes(), password).map(drop);
            assert_eq!(opened(None), Err(KeyError::PasswordMissing));
            assert_eq!(opened(Some(b"other")), Err(KeyError::PasswordWrong));
        }
    }

    #[test]
    fn keystore_that_takes_too_much_memory_is_refused_before_it_takes_any() {
        let with = |field: &str, value: u64| {
            let mut keystore = scrypt();
            keystore["crypto"]["kdfparams"][field] = json!(value);
            open(&keystore, b"")
        };
        let usual = KeyError::TooCostly { mebibytes: 256 };
        assert_eq!(with("n", 262_144), Err(usual));
        let most = KeyError::TooCostly {
            mebibytes: u64::MAX.div_ceil(1 << 20),
        };
        assert_eq!(with("n", u64::MAX), Err(most));
        let mut many = scrypt();
        many["crypto"]["kdfparams"]["p"] = json!(17);
        assert_eq!(open(&many, b""), Err(KeyError::NotAKeystore("p")));
    }

    #[test]
    fn keystore_with_odd_fields_names_the_field() {
        let odd = |pointer: &str, value: Value, base: Value| {
            let mut keystore = base;
            *keystore.pointer_mut(pointer).unwrap() = value;
            open(&keystore, b"").unwrap_err()
        };
        for (pointer, value, field) in [
            ("/version", json!(1), "version"),
            ("/crypto/cipher", json!("aes-128-cbc"), "cipher"),
            ("/crypto/cipherparams/iv", json!("00"), "iv"),
            ("/crypto/cipherparams/iv", json!("x"), "iv"),
            ("/crypto/ciphertext", json!("00"), "ciphertext"),
            ("/crypto/ciphertext", json!("x"), "ciphertext"),
            ("/crypto/mac", json!("x"), "mac"),
            ("/crypto/kdf", json!("argon2"), "kdf"),
            ("/crypto/kdfparams/dklen", json!(64), "dklen"),
            ("/crypto/kdfparams/dklen", json!(null), "dklen"),
            ("/crypto/kdfparams/salt", json!(5), "salt"),
            ("/crypto/kdfparams/salt", json!("x"), "salt"),
            ("/crypto/kdfparams/prf", json!("hmac-sha512"), "prf"),
            ("/crypto/kdfparams/c", json!(0), "c"),
            ("/crypto/kdfparams/c", json!("many"), "c"),
            ("/crypto/kdfparams/c", json!(u64::MAX), "c"),
        ] {
            let error = odd(pointer, value, pbkdf2());
            assert_eq!(error, KeyError::NotAKeystore(field), "{pointer}");
        }
        for field in ["n", "r", "p"] {
            let pointer = format!("/crypto/kdfparams/{field}");
            let error = odd(&pointer, json!(null), scrypt());
            assert_eq!(error, KeyError::NotAKeystore(field));
        }
        for (field, value) in [("n", 1000), ("n", 0), ("p", 0)] {
            let pointer = format!("/crypto/kdfparams/{field}");
            let error = odd(&pointer, json!(value), scrypt());
            assert_eq!(error, KeyError::NotAKeystore("kdfparams"), "{field}");
        }
    }

    #[test]
    fn line_break_is_not_part_of_the_password() {
        for secret in [&b"pass word"[..], b"pass word\n", b"pass word\r\n"] {
            assert_eq!(password_of(secret), b"pass word");
        }
        assert_eq!(password_of(b"two\n\n"), b"two\n");
    }
}
