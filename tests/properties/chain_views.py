"""Every read message about everything that is known: what can be seen of a contract's state."""

from orchestrator.models import Role
from tests.properties.chain_calls import AnyCall
from tests.properties.chain_model import Model

_PAGE = 50


def views(model: Model) -> list[AnyCall]:
    """Return calls that read all jobs, workers, accounts, measurements and rules."""
    return [*_rules(model), *_jobs(model), *_workers(model)]


def _rules(model: Model) -> list[AnyCall]:
    p = model.processor
    found: list[AnyCall] = [p.parameters(), p.mode(), p.admin(), p.genesis_hash(), p.version()]
    for account in model.accounts:
        found += [p.has_role(account.account_id, role) for role in Role]
        found.append(p.rate_limit_left(account.account_id))
    return found


def _jobs(model: Model) -> list[AnyCall]:
    p = model.processor
    last = max([0, *model.jobs, *model.purged])
    found: list[AnyCall] = [p.get_job_counter(), p.jobs_page(1, 0)]
    found += [p.jobs_page(first, _PAGE) for first in range(0, last + 2, _PAGE)]
    # Of purged jobs there is nothing to be seen: a few are enough.
    for job in (0, *model.jobs, *model.purged[-3:], last + 1):
        found += [p.get_job(job), p.get_attestation(job)]
        found += [p.attestation_status(job), p.verify_attestation(job)]
    return found


def _workers(model: Model) -> list[AnyCall]:
    p = model.processor
    last = max([0, *model.workers])
    found: list[AnyCall] = [p.workers_page(first, _PAGE) for first in range(0, last + 2, _PAGE)]
    for worker in range(last + 2):
        found += [p.get_worker(worker), p.is_trusted(worker)]
    found += [p.worker_by_key(key) for key in model.signers]
    found += [p.has_measurement(m) for m in sorted(model.allowed | model.revoked)]
    return found
