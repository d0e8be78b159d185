#!/usr/bin/env bash
# One job by hand: `bash examples/by_hand.sh [FOLDER [WORKER_PORT [ORCHESTRATOR_PORT]]]`, with phala-jobs
# on the path and an empty folder (else a temporary one).
# Development only: keys without a passphrase, an embedded chain, a TEE that is simulated and proves nothing.
set -euo pipefail
command -v phala-jobs >/dev/null || { echo "no phala-jobs on the path: . .venv/bin/activate" >&2; exit 2; }
cd "${1:-$(mktemp -d)}"
worker=127.0.0.1:${2:-8701} orchestrator=127.0.0.1:${3:-8700}
export PHALA_JOBS_KEYS=keys PHALA_JOBS_KEYS_UNENCRYPTED=true PHALA_JOBS_CHAIN=local:chain.db
export PHALA_JOBS_EVIDENCE=evidence PHALA_JOBS_CLIENT=client
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
field() { sed -n "s/.*\"$1\": \"\(.*\)\".*/\1/p"; }
until_listening() { until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do sleep 0.1; done; }

# Four accounts: who deploys is admin; who admits workers does nothing else.
admin=$(phala-jobs keys new admin --phrase-file admin.phrase --json | field account)
registrar=$(phala-jobs keys new registrar --phrase-file registrar.phrase --json | field account)
operator=$(phala-jobs keys new operator --phrase-file operator.phrase --json | field account)
owner=$(phala-jobs keys new owner --phrase-file owner.phrase --json | field account)
PHALA_JOBS_CONTRACT=$(phala-jobs contract deploy --account admin --json | field contract)
export PHALA_JOBS_CONTRACT
phala-jobs roles grant "$registrar" registrar --account admin
phala-jobs roles grant "$operator" operator --account admin

# A worker. On TEE hardware: --evidence dstack, and no simulator.
phala-jobs simulator init simulator
export PHALA_JOBS_COLLATERAL=simulated:simulator # the newest that judges evidence; on TEE hardware a PCCS
phala-jobs worker token add registrar --scope registration -o registrar.token --folder worker
phala-jobs worker token add orchestrator --scope jobs -o jobs.token --folder worker
phala-jobs worker run --folder worker --listen $worker --tasks echo --evidence simulated:simulator &
until_listening "${worker#*:}"

# The policy that its evidence meets. In earnest: review what it measures before it is allowed. On TEE
# hardware without --root.
phala-jobs evidence fetch http://$worker -o evidence.cbor
phala-jobs policy from-evidence evidence.cbor --name "worker 1.0" --root own=simulator/root.pem -o policy.toml
phala-jobs policy show policy.toml

# The worker gets on the trusted list: fourteen checks, on evidence for a challenge of the registrar's own.
phala-jobs workers register http://$worker --policy policy.toml --allow-measurement --yes \
    --token-file registrar.token --account registrar
phala-jobs trust status --policy policy.toml

# The orchestrator, for this owner's jobs alone.
(umask 077 && echo "1 = \"$(cat jobs.token)\"" >tokens.toml)
phala-jobs orchestrator run --account operator --owners "$owner" --tokens tokens.toml \
    --folder orchestrator --listen $orchestrator &
until_listening "${orchestrator#*:}"

# The owner verifies the worker's evidence too, by a policy of its own (here the same file), seals, submits,
# waits, checks everything, opens.
echo "my secret input" >input.txt
phala-jobs submit echo input.txt --policy policy.toml --account owner --wait
phala-jobs result 1 --policy policy.toml --account owner --blob-sources http://$orchestrator

# Anybody verifies: on the chain, or offline from a receipt, by a policy of their own (here the same file). An
# embedded chain can't prove what it stores, so verify says what it could not check (exit code 3); on a node it
# can, with --trusted-block.
phala-jobs verify 1
phala-jobs receipt 1 --policy policy.toml
phala-jobs verify receipt-1.json --policy policy.toml || [ $? -eq 3 ]
