//! The vectors that the orchestrator's tests read too. They come from a second implementation, see
//! `tests/vectors/README.md`.

use ink::primitives::AccountId;
use k256::elliptic_curve::sec1::ToEncodedPoint;
use serde_json::Value;
use sha2::{Digest, Sha512};

use crate::attestation::{signing_key_bytes, verify_signature, Registration, Statement};
use crate::errors::Error;
use crate::types::{Domain, Outcome, PublicKey, Signature};

use super::reference::{Attempt, Possession};
use super::world::World;

const STATEMENTS: &str = include_str!("../../tests/vectors/statement.json");
const REGISTRATIONS: &str = include_str!("../../tests/vectors/registration.json");
const BINDINGS: &str = include_str!("../../tests/vectors/binding.json");

fn load(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap()
}

fn bytes(value: &Value, name: &str) -> Vec<u8> {
    hex::decode(value[name].as_str().unwrap()).unwrap()
}

fn array<const N: usize>(value: &Value, name: &str) -> [u8; N] {
    bytes(value, name).try_into().unwrap()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap()
}

fn domain(fields: &Value) -> Domain {
    Domain {
        genesis_hash: array(fields, "genesis_hash_hex"),
        contract: AccountId::from(array::<32>(fields, "contract_hex")),
    }
}

/// Key and signature of an entry.
fn signed(entry: &Value) -> (PublicKey, Signature) {
    match entry["scheme"].as_str().unwrap() {
        "ecdsa" => (
            PublicKey::Ecdsa(array(entry, "public_key_hex")),
            Signature::Ecdsa(array(entry, "signature_hex")),
        ),
        "sr25519" => (
            PublicKey::Sr25519(array(entry, "public_key_hex")),
            Signature::Sr25519(array(entry, "signature_hex")),
        ),
        other => panic!("unknown scheme {other}"),
    }
}

/// The key that is encoded in 34 bytes.
fn signing_key(encoded: &[u8]) -> PublicKey {
    match encoded[0] {
        1 => PublicKey::Sr25519(encoded[1..33].try_into().unwrap()),
        2 => PublicKey::Ecdsa(encoded[1..].try_into().unwrap()),
        other => panic!("unknown scheme {other}"),
    }
}

fn check_signatures(case: &Value, digest: &[u8; 32]) {
    let signatures = list(case, "signatures");
    assert!(!signatures.is_empty());
    for entry in signatures {
        let (key, signature) = signed(entry);
        assert_eq!(verify_signature(&key, &signature, digest), Ok(()), "{case}");
    }
}

fn check_refused(vectors: &Value) {
    let refused = list(vectors, "refused");
    assert!(!refused.is_empty());
    for entry in refused {
        assert_eq!(entry["error"], "BadSignature");
        let (key, signature) = signed(entry);
        assert_eq!(
            verify_signature(&key, &signature, &array(entry, "digest_hex")),
            Err(Error::BadSignature),
            "{}",
            entry["name"]
        );
    }
}

#[test]
fn statements_are_encoded_hashed_and_verified_as_everywhere() {
    let vectors = load(STATEMENTS);
    assert!(!list(&vectors, "cases").is_empty());
    for case in list(&vectors, "cases") {
        let fields = &case["statement"];
        let domain = domain(fields);
        let job_id = fields["job_id"].as_str().unwrap().parse().unwrap();
        let outcome = match fields["outcome"].as_str().unwrap() {
            "Completed" => Outcome::Completed,
            "Failed" => Outcome::Failed,
            other => panic!("unknown outcome {other}"),
        };
        let payload_hash = array(fields, "payload_hash_hex");
        let result_hash = array(fields, "result_hash_hex");
        let measurement = array(fields, "measurement_hex");
        let statement = Statement {
            domain: &domain,
            job_id,
            payload_hash: &payload_hash,
            outcome,
            result_hash: &result_hash,
            units: number(fields, "units"),
            measurement: &measurement,
            started_at: number(fields, "started_at"),
            finished_at: number(fields, "finished_at"),
            issued_at: number(fields, "issued_at"),
        };

        assert_eq!(statement.encode(), bytes(case, "encoded_hex"));
        assert_eq!(statement.encode().len(), 248);
        assert_eq!(statement.digest(), array(case, "digest_hex"));
        check_signatures(case, &statement.digest());

        // The reference that the other tests sign with agrees.
        let attempt = Attempt {
            key: World::key(1),
            genesis_hash: domain.genesis_hash,
            contract: array(fields, "contract_hex"),
            job_id,
            payload_hash,
            outcome,
            result_hash,
            units: statement.units,
            measurement,
            started_at: statement.started_at,
            finished_at: statement.finished_at,
            issued_at: statement.issued_at,
        };
        assert_eq!(attempt.bytes(), bytes(case, "encoded_hex"));
    }
    check_refused(&vectors);
}

#[test]
fn registrations_are_encoded_hashed_and_verified_as_everywhere() {
    let vectors = load(REGISTRATIONS);
    assert!(!list(&vectors, "cases").is_empty());
    for case in list(&vectors, "cases") {
        let fields = &case["registration"];
        let domain = domain(fields);
        let key = signing_key(&bytes(case, "signing_key_hex"));
        let possession = Possession {
            genesis_hash: domain.genesis_hash,
            contract: array(fields, "contract_hex"),
            encryption_key: array(fields, "encryption_key_hex"),
            measurement: array(fields, "measurement_hex"),
            evidence_hash: array(fields, "evidence_hash_hex"),
            valid_until: number(fields, "valid_until"),
        };
        let registration = Registration {
            domain: &domain,
            signing_key: &key,
            encryption_key: &possession.encryption_key,
            measurement: &possession.measurement,
            evidence_hash: &possession.evidence_hash,
            valid_until: possession.valid_until,
        };

        assert_eq!(registration.encode(), bytes(case, "encoded_hex"));
        assert_eq!(
            registration.encode().len(),
            crate::attestation::REGISTRATION_LENGTH
        );
        assert_eq!(registration.digest(), array(case, "digest_hex"));
        check_signatures(case, &registration.digest());
        assert_eq!(possession.bytes(&key), bytes(case, "encoded_hex"));
    }
    check_refused(&vectors);
}

/// Any r that is a point's, any s and any digest are a signature by some key, which recovery finds.
/// So there is a good signature with the largest s that is allowed, and one with the next.
#[test]
fn the_largest_s_is_half_the_order() {
    let half =
        hex::decode("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0").unwrap();
    let digest = [0x11; 32];
    let Signature::Ecdsa(mut bytes) = World::key(1).sign(&digest) else {
        panic!("worker 1 signs by ECDSA");
    };
    let mut verified_with = |last_byte| {
        bytes[32..64].copy_from_slice(&half);
        bytes[63] = last_byte;
        let signature = k256::ecdsa::Signature::from_slice(&bytes[..64]).unwrap();
        let recovery_id = k256::ecdsa::RecoveryId::from_byte(bytes[64]).unwrap();
        let key = recover(&signature, recovery_id, &digest)
            .to_affine()
            .to_encoded_point(true);
        let key = PublicKey::Ecdsa(key.as_bytes().try_into().unwrap());
        verify_signature(&key, &Signature::Ecdsa(bytes), &digest)
    };

    assert_eq!(verified_with(0xa0), Ok(()));
    assert_eq!(verified_with(0xa1), Err(Error::BadSignature));
}

/// The key whose signature this is: `(s R - z G) / r`, for any s.
fn recover(
    signature: &k256::ecdsa::Signature,
    recovery_id: k256::ecdsa::RecoveryId,
    digest: &[u8; 32],
) -> k256::ProjectivePoint {
    use k256::elliptic_curve::ops::{Invert, Reduce};
    use k256::elliptic_curve::point::DecompressPoint;

    let (r, s) = signature.split_scalars();
    let odd = u8::from(recovery_id.is_y_odd()).into();
    let point = k256::AffinePoint::decompress(&r.to_bytes(), odd).unwrap();
    let z = <k256::Scalar as Reduce<k256::U256>>::reduce_bytes(digest.into());
    let inverse: k256::Scalar = *r.invert();
    (k256::ProjectivePoint::from(point) * *s - k256::ProjectivePoint::GENERATOR * z) * inverse
}

/// The contract does not read bindings, quotes are verified outside; their signing key bytes are
/// the contract's all the same.
#[test]
fn bindings_hold_the_contracts_signing_key_bytes() {
    let vectors = load(BINDINGS);
    assert!(!list(&vectors, "cases").is_empty());
    for case in list(&vectors, "cases") {
        let key = signing_key(&bytes(case, "signing_key_hex"));
        assert_eq!(
            signing_key_bytes(&key).as_slice(),
            bytes(case, "signing_key_hex")
        );
        let fields = &case["binding"];
        let binding = [
            b"\xffphala-job-processor/worker-binding/v1".to_vec(),
            bytes(fields, "genesis_hash_hex"),
            bytes(fields, "contract_hex"),
            signing_key_bytes(&key).to_vec(),
            bytes(fields, "encryption_key_hex"),
            bytes(fields, "challenge_hex"),
        ]
        .concat();

        assert_eq!(binding, bytes(case, "encoded_hex"));
        assert_eq!(
            Sha512::digest(&binding).to_vec(),
            bytes(case, "report_data_hex")
        );
    }
}
