"""How hard a block is compressed depends on whether there is anything else to do."""

from __future__ import annotations

from backupd.repository.effort import QUICK, THOROUGH, Effort

MIB = 1 << 20


class Machine:
    """A clock, and what the process has computed."""

    def __init__(self) -> None:
        self.now = self.spent = 100.0

    def goes_on(self, seconds: float, *, computing: float) -> None:
        self.now += seconds
        self.spent += computing


def effort(machine: Machine, level: int | None = None) -> Effort:
    return Effort(level, clock=lambda: machine.now, processor=lambda: machine.spent)


def test_a_run_begins_quickly_and_takes_its_time_when_it_waits_for_the_network() -> None:
    machine = Machine()
    chosen = effort(machine)
    assert chosen.level(MIB, dense=False) == QUICK
    machine.goes_on(1, computing=0.2)
    assert chosen.level(MIB, dense=False) == THOROUGH
    machine.goes_on(1, computing=0.9)
    assert chosen.level(MIB, dense=False) == QUICK


def test_a_moment_is_too_short_to_judge() -> None:
    machine = Machine()
    chosen = effort(machine)
    machine.goes_on(0.1, computing=0)
    assert chosen.level(MIB, dense=False) == QUICK


def test_a_small_block_is_always_compressed_well() -> None:
    assert effort(Machine()).level(10_000, dense=False) == THOROUGH


def test_what_is_compressed_already_gets_less() -> None:
    machine = Machine()
    chosen = effort(machine)
    assert chosen.level(MIB, dense=True) < QUICK
    machine.goes_on(1, computing=0)
    assert chosen.level(MIB, dense=True) < THOROUGH


def test_the_users_level_is_for_all_text_at_all_times() -> None:
    machine = Machine()
    chosen = effort(machine, 15)
    assert chosen.level(MIB, dense=False) == chosen.level(100, dense=False) == 15
    assert chosen.level(MIB, dense=True) < 15
    machine.goes_on(1, computing=0)
    assert chosen.level(MIB, dense=False) == 15
