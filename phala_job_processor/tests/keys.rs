//! Keys of workers that really sign: k256 and schnorrkel, not the libraries of ink!'s engine.

use k256::ecdsa::SigningKey;
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};

use crate::types::{PublicKey, Signature};

/// A signing key made from a number.
#[derive(Clone)]
pub enum Key {
    Ecdsa(SigningKey),
    Sr25519(Box<Keypair>),
}

impl Key {
    pub fn ecdsa(seed: u8) -> Self {
        Self::Ecdsa(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    pub fn sr25519(seed: u8) -> Self {
        let secret = MiniSecretKey::from_bytes(&[seed; 32]).unwrap();
        Self::Sr25519(Box::new(secret.expand_to_keypair(ExpansionMode::Ed25519)))
    }

    pub fn public_key(&self) -> PublicKey {
        match self {
            Self::Ecdsa(key) => {
                let point = key.verifying_key().to_encoded_point(true);
                PublicKey::Ecdsa(point.as_bytes().try_into().unwrap())
            }
            Self::Sr25519(pair) => PublicKey::Sr25519(pair.public.to_bytes()),
        }
    }

    pub fn sign(&self, digest: &[u8; 32]) -> Signature {
        match self {
            Self::Ecdsa(key) => {
                let (signature, recovery_id) = key.sign_prehash_recoverable(digest).unwrap();
                let mut bytes = [0; 65];
                bytes[..64].copy_from_slice(&signature.to_bytes());
                bytes[64] = recovery_id.to_byte();
                Signature::Ecdsa(bytes)
            }
            Self::Sr25519(pair) => {
                Signature::Sr25519(pair.sign_simple(b"substrate", digest).to_bytes())
            }
        }
    }
}
