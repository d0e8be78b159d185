#!/usr/bin/env bash
# One job by hand: `bash examples/by_hand.sh [FOLDER [WORKER_PORT [ORCHESTRATOR_PORT]]]`, with phala-jobs
# on the path and an empty folder (else a temporary one).
# Development only: keys without a passphrase, an embedded chain, a worker without a TEE.
set -euo pipefail
command -v phala-jobs >/dev/null || { echo "no phala-jobs on the path: . .venv/bin/activate" >&2; exit 2; }
cd "${1:-$(mktemp -d)}"
worker=127.0.0.1:${2:-8701} orchestrator=127.0.0.1:${3:-8700}
export PHALA_JOBS_KEYS=keys PHALA_JOBS_KEYS_UNENCRYPTED=true PHALA_JOBS_CHAIN=local:chain.db
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
field() { sed -n "s/.*\"$1\": \"\(.*\)\".*/\1/p"; }
until_listening() { until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do sleep 0.1; done; }

# Three accounts. The deployer is admin; here it is the registrar too.
admin=$(phala-jobs keys new admin --phrase-file admin.phrase --json | field account)
operator=$(phala-jobs keys new operator --phrase-file operator.phrase --json | field account)
owner=$(phala-jobs keys new owner --phrase-file owner.phrase --json | field account)
PHALA_JOBS_CONTRACT=$(phala-jobs contract deploy --account admin --json | field contract)
export PHALA_JOBS_CONTRACT
phala-jobs roles grant "$admin" registrar --account admin
phala-jobs roles grant "$operator" operator --account admin

# A worker, and its entry in the trusted list: on its own word, without a TEE proof.
measurement=$(printf '42%.0s' {1..32})
phala-jobs measurements allow "$measurement" --account admin
phala-jobs worker token add registrar --scope registration -o registrar.token --folder worker
phala-jobs worker token add orchestrator --scope jobs -o jobs.token --folder worker
phala-jobs worker run --folder worker --listen $worker --tasks echo &
until_listening "${worker#*:}"
phala-jobs workers register http://$worker --unverified --measurement "$measurement" \
    --token-file registrar.token --account admin

# The orchestrator, for this owner's jobs alone.
(umask 077 && echo "1 = \"$(cat jobs.token)\"" >tokens.toml)
phala-jobs orchestrator run --account operator --owners "$owner" --tokens tokens.toml \
    --folder orchestrator --listen $orchestrator &
until_listening "${orchestrator#*:}"

# The owner seals, submits, waits, checks everything, opens. Anybody verifies.
echo "my secret input" >input.txt
phala-jobs submit echo input.txt --account owner --wait
phala-jobs result 1 --account owner --blob-sources http://$orchestrator
phala-jobs verify 1
