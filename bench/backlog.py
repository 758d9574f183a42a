"""How fast a system works off a backlog, and what each kind of process spends on it."""

from collections.abc import Sequence

from bench import processes
from bench.plan import Figures
from bench.service import Payee, Service

NOT_COUNTED = "simulator"  # it stands for a machine that is not ours
NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"
LAST_COMPLETED = "SELECT extract(epoch FROM max(completed_at))::float8 FROM withdrawals"


def drain(service: Service, payees: Sequence[Payee]) -> Figures:
    """Request a withdrawal to each payee while the workers are suspended, then let them work.

    The rate ends with the last completion, by the database's clock; the CPU time with the last webhook
    applied and the last payment confirmed.
    """
    with service.workers_frozen():
        service.withdraw(payees)
        before = processes.cpu_seconds(service.pids)
        started_at = float(service.value(NOW))
    service.wait_until_final()
    after = processes.cpu_seconds(service.pids)
    seconds = float(service.value(LAST_COMPLETED)) - started_at
    return {"per_second": len(payees) / seconds, **cpu_each(before, after, len(payees))}


def cpu_each(before: dict[str, float], after: dict[str, float], number: int) -> Figures:
    """Milliseconds of CPU per withdrawal: in all without the simulator, and by kind of process."""
    spent = {kind: (after[kind] - before[kind]) / number * 1000 for kind in after}
    total = sum(milliseconds for kind, milliseconds in spent.items() if kind != NOT_COUNTED)
    return {"cpu_ms": total, **{f"cpu_{kind}_ms": milliseconds for kind, milliseconds in spent.items()}}


def warm_up(service: Service, payees: Sequence[Payee]) -> None:
    """Pay each payee once: the provider knows them then, and every thread has its connections."""
    service.withdraw(payees)
    service.wait_until_final()
