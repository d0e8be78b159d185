//! What the node calls in its runtime.
//!
//! The runtime itself is only ever executed as Wasm. The node needs nothing of it but the types of
//! its functions, so none of the functions here has a body that runs, and no pallet is compiled
//! into the node.

use pallet_transaction_payment_rpc_runtime_api::{
    self as payment, FeeDetails, RuntimeDispatchInfo,
};
use sp_core::{crypto::KeyTypeId, OpaqueMetadata};
use sp_inherents::{CheckInherentsResult, InherentData};
use sp_runtime::{
    generic, traits,
    transaction_validity::{TransactionSource, TransactionValidity},
    AccountId32, ApplyExtrinsicResult, ExtrinsicInclusionMode, OpaqueExtrinsic,
};
use sp_version::RuntimeVersion;
use sp_weights::Weight;

pub type Block = generic::Block<Header, OpaqueExtrinsic>;
pub type Hash = <Block as traits::Block>::Hash;
type Header = generic::Header<u32, traits::BlakeTwo256>;
type Nonce = u32;
type Balance = u128;

#[expect(
    dead_code,
    reason = "the macro takes types from it and leaves the rest to Wasm"
)]
enum Runtime {}

sp_api::impl_runtime_apis! {
    impl sp_api::Core<Block> for Runtime {
        fn version() -> RuntimeVersion {
            unreachable!()
        }
        fn execute_block(_: Block) {
            unreachable!()
        }
        fn initialize_block(_: &Header) -> ExtrinsicInclusionMode {
            unreachable!()
        }
    }

    impl sp_api::Metadata<Block> for Runtime {
        fn metadata() -> OpaqueMetadata {
            unreachable!()
        }
        fn metadata_at_version(_: u32) -> Option<OpaqueMetadata> {
            unreachable!()
        }
        fn metadata_versions() -> Vec<u32> {
            unreachable!()
        }
    }

    impl sp_block_builder::BlockBuilder<Block> for Runtime {
        fn apply_extrinsic(_: OpaqueExtrinsic) -> ApplyExtrinsicResult {
            unreachable!()
        }
        fn finalize_block() -> Header {
            unreachable!()
        }
        fn inherent_extrinsics(_: InherentData) -> Vec<OpaqueExtrinsic> {
            unreachable!()
        }
        fn check_inherents(_: Block, _: InherentData) -> CheckInherentsResult {
            unreachable!()
        }
    }

    impl sp_transaction_pool::runtime_api::TaggedTransactionQueue<Block> for Runtime {
        fn validate_transaction(
            _: TransactionSource,
            _: OpaqueExtrinsic,
            _: Hash,
        ) -> TransactionValidity {
            unreachable!()
        }
    }

    impl sp_session::SessionKeys<Block> for Runtime {
        fn generate_session_keys(_: Option<Vec<u8>>) -> Vec<u8> {
            unreachable!()
        }
        fn decode_session_keys(_: Vec<u8>) -> Option<Vec<(Vec<u8>, KeyTypeId)>> {
            unreachable!()
        }
    }

    impl frame_system_rpc_runtime_api::AccountNonceApi<Block, AccountId32, Nonce> for Runtime {
        fn account_nonce(_: AccountId32) -> Nonce {
            unreachable!()
        }
    }

    impl payment::TransactionPaymentApi<Block, Balance> for Runtime {
        fn query_info(_: OpaqueExtrinsic, _: u32) -> RuntimeDispatchInfo<Balance> {
            unreachable!()
        }
        fn query_fee_details(_: OpaqueExtrinsic, _: u32) -> FeeDetails<Balance> {
            unreachable!()
        }
        fn query_weight_to_fee(_: Weight) -> Balance {
            unreachable!()
        }
        fn query_length_to_fee(_: u32) -> Balance {
            unreachable!()
        }
    }
}
