//! The node's parts, put together: client, pool, network, RPC, and what makes blocks.

use crate::interface::{Block, Hash, RuntimeApi};
use futures::{channel::mpsc, stream, Stream, StreamExt};
use jsonrpsee::RpcModule;
use pallet_transaction_payment_rpc::{TransactionPayment, TransactionPaymentApiServer};
use sc_consensus_manual_seal::{
    import_queue,
    rpc::{EngineCommand, ManualSeal, ManualSealApiServer},
    run_delayed_finalize, run_manual_seal, DelayedFinalizeParams, ManualSealParams,
};
use sc_network::{
    config::FullNetworkConfiguration, service::traits::NetworkBackend, NetworkWorker,
};
use sc_service::{Configuration, Error, TaskManager, TransactionPool};
use std::{pin::Pin, sync::Arc, time::Duration};
use substrate_frame_rpc_system::{System, SystemApiServer};
use tokio::time::MissedTickBehavior;

type Commands = Pin<Box<dyn Stream<Item = EngineCommand<Hash>> + Send>>;

/// What makes blocks, and when they are final.
pub enum Sealing {
    /// One block for each transaction that enters the pool.
    Instant { finalize_delay_seconds: u64 },
    /// One block each `block_time`, transactions or not.
    Timed {
        block_time: Duration,
        finalize_delay_seconds: u64,
    },
    /// Blocks and finality by RPC alone.
    Manual,
}

/// Start a node that runs until the returned tasks end.
pub fn start(config: Configuration, sealing: Sealing) -> Result<TaskManager, Error> {
    let executor = sc_service::new_wasm_executor::<sp_io::SubstrateHostFunctions>(&config.executor);
    let (client, backend, keystore, mut tasks) =
        sc_service::new_full_parts::<Block, RuntimeApi, _>(&config, None, executor)?;
    let client = Arc::new(client);
    let pool = sc_transaction_pool::BasicPool::new_full(
        config.transaction_pool.clone(),
        config.role.is_authority().into(),
        config.prometheus_registry(),
        tasks.spawn_essential_handle(),
        client.clone(),
    );

    let registry = config.prometheus_registry().cloned();
    let (network, system_rpc_tx, tx_handler_controller, network_starter, sync_service) =
        sc_service::build_network(sc_service::BuildNetworkParams {
            net_config: FullNetworkConfiguration::<_, _, NetworkWorker<Block, Hash>>::new(
                &config.network,
                registry.clone(),
            ),
            client: client.clone(),
            transaction_pool: pool.clone(),
            spawn_handle: tasks.spawn_handle(),
            import_queue: import_queue(
                Box::new(client.clone()),
                &tasks.spawn_essential_handle(),
                registry.as_ref(),
            ),
            block_announce_validator_builder: None,
            warp_sync_config: None,
            block_relay: None,
            metrics: NetworkWorker::<Block, Hash>::register_notification_metrics(registry.as_ref()),
            config: &config,
        })?;

    let mut engine = None;
    let (commands, finalize_delay): (Commands, _) = match sealing {
        Sealing::Instant {
            finalize_delay_seconds,
        } => (
            Box::pin(pool.import_notification_stream().map(|_| new_block())),
            Some(finalize_delay_seconds),
        ),
        Sealing::Timed {
            block_time,
            finalize_delay_seconds,
        } => (
            Box::pin(every(block_time).map(|()| new_block())),
            Some(finalize_delay_seconds),
        ),
        Sealing::Manual => {
            let (sender, receiver) = mpsc::channel(0);
            engine = Some(sender);
            (Box::pin(receiver), None)
        }
    };

    let rpc_client = client.clone();
    let rpc_pool = pool.clone();
    sc_service::spawn_tasks(sc_service::SpawnTasksParams {
        client: client.clone(),
        backend: backend.clone(),
        task_manager: &mut tasks,
        keystore: keystore.keystore(),
        transaction_pool: pool.clone(),
        rpc_builder: Box::new(move |_| {
            let mut module = RpcModule::new(());
            merge(
                &mut module,
                System::new(rpc_client.clone(), rpc_pool.clone()).into_rpc(),
            )?;
            merge(
                &mut module,
                TransactionPayment::new(rpc_client.clone()).into_rpc(),
            )?;
            if let Some(engine) = &engine {
                merge(&mut module, ManualSeal::new(engine.clone()).into_rpc())?;
            }
            Ok(module)
        }),
        network,
        system_rpc_tx,
        tx_handler_controller,
        sync_service,
        telemetry: None,
        config,
    })?;

    if let Some(delay_sec) = finalize_delay {
        let finalize = run_delayed_finalize(DelayedFinalizeParams {
            client: client.clone(),
            spawn_handle: tasks.spawn_handle(),
            delay_sec,
        });
        tasks
            .spawn_essential_handle()
            .spawn("finalize", None, finalize);
    }
    let seal = run_manual_seal(ManualSealParams {
        env: sc_basic_authorship::ProposerFactory::new(
            tasks.spawn_handle(),
            client.clone(),
            pool.clone(),
            registry.as_ref(),
            None,
        ),
        block_import: client.clone(),
        client,
        pool,
        commands_stream: commands,
        select_chain: sc_consensus::LongestChain::new(backend),
        consensus_data_provider: None,
        create_inherent_data_providers: |_, ()| async {
            Ok(sp_timestamp::InherentDataProvider::from_system_time())
        },
    });
    tasks
        .spawn_essential_handle()
        .spawn_blocking("seal", None, seal);
    network_starter.start_network();
    Ok(tasks)
}

/// A block on the best one, empty if there is nothing to put into it.
fn new_block() -> EngineCommand<Hash> {
    EngineCommand::SealNewBlock {
        create_empty: true,
        finalize: false,
        parent_hash: None,
        sender: None,
    }
}

/// What passed while a block took longer than *period*, or the machine slept, is skipped.
fn every(period: Duration) -> impl Stream<Item = ()> {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    stream::unfold(ticks, |mut ticks| async move {
        ticks.tick().await;
        Some(((), ticks))
    })
}

fn merge<T>(module: &mut RpcModule<()>, part: RpcModule<T>) -> Result<(), Error> {
    module
        .merge(part)
        .map_err(|error| Error::Application(Box::new(error)))
}
