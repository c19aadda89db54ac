"""Who started this process, and whether the settings count on it."""

import re

import pytest

from vismae.core.errors import SettingError
from vismae.core.launch import Launch, find_launch, require_launch_fits
from vismae.core.sections import TrainerSettings

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
ALLOCATION = {
    "SLURM_JOB_ID": "12",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NODELIST": "gpu[03-05,9],login",
}
STEP = {
    **ALLOCATION,
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "2(x4)",
    "SLURM_STEP_NODELIST": "gpu[03-05,9],login",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


def test_a_process_by_itself_is_alone():
    assert find_launch({}) == Launch()


def test_torchrun_tells_every_process_its_place():
    launch = find_launch(TORCHRUN)
    assert launch == Launch("torchrun", 5, 1, 8, 4, "node1", 29500)
    assert (launch.machine, launch.machines) == (1, 2)
    assert find_launch(launch.variables()) == launch


def test_a_slurm_step_tells_every_task_its_place():
    launch = find_launch(STEP)
    assert (launch.engine, launch.rank, launch.local_rank) == ("slurm", 5, 1)
    assert (launch.world, launch.per_machine, launch.machines) == (8, 2, 4)
    assert launch.address == "gpu03"
    assert 15_000 <= launch.port < 30_000
    assert launch.port != find_launch({**STEP, "SLURM_JOB_ID": "13"}).port
    assert launch.port != find_launch({**STEP, "SLURM_STEP_ID": "1"}).port
    assert find_launch({**STEP, "MASTER_ADDR": "ib0", "MASTER_PORT": "999"}).address == "ib0"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("c[4,8]", "c4"),
        ("gpu[003-010]x,a", "gpu003x"),
    ],
)
def test_the_first_host_of_a_list_is_where_the_first_process_is(nodes: str, first: str):
    assert find_launch({**STEP, "SLURM_STEP_NODELIST": nodes}).address == first


def test_the_shell_of_an_allocation_is_no_task():
    assert find_launch(ALLOCATION) == Launch()
    # srun --pty bash: a step of one task.
    assert find_launch({**ALLOCATION, "SLURM_STEP_NUM_TASKS": "1"}) == Launch()


def test_torchrun_within_slurm_counts():
    assert find_launch({**STEP, **TORCHRUN}).engine == "torchrun"


def test_half_a_launch_is_named():
    left = {name: value for name, value in TORCHRUN.items() if name != "WORLD_SIZE"}
    with pytest.raises(SettingError, match=r"WORLD_SIZE is not set.*unset RANK and LOCAL_RANK"):
        find_launch(left)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({**STEP, "SLURM_LOCALID": ""}, "SLURM_LOCALID is not set; expected a whole number"),
        ({**STEP, "SLURM_PROCID": "x"}, "SLURM_PROCID is 'x'; .*unset RANK, LOCAL_RANK and SLURM"),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "many"}, "SLURM_STEP_NUM_TASKS is 'many'"),
        ({**STEP, "SLURM_STEP_TASKS_PER_NODE": "2(x"}, "_PER_NODE is '2\\(x'; expected tasks such"),
        ({**TORCHRUN, "WORLD_SIZE": "2.5"}, "WORLD_SIZE is '2.5'"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "0"}, "with 0 on each machine, which cannot be"),
        ({**TORCHRUN, "RANK": "8"}, r"process 8 \(counted from 0\) of 8"),
    ],
)
def test_variables_that_cannot_be_are_named(variables: dict[str, str], message: str):
    with pytest.raises(SettingError, match=message):
        find_launch(variables)


def test_empty_variables_of_slurm_count_as_not_set():
    assert find_launch({**ALLOCATION, "SLURM_STEP_NUM_TASKS": ""}) == Launch()
    emptied = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
    launch = find_launch({**STEP, **dict.fromkeys(emptied, ""), "SLURM_LOCALID": "5"})
    assert (launch.address, launch.per_machine, launch.port) == ("127.0.0.1", 8, 15_000)


def test_machines_with_unequal_numbers_of_processes_are_refused():
    with pytest.raises(SettingError, match=r"3,2.*--ntasks-per-node"):
        find_launch({**STEP, "SLURM_STEP_NUM_TASKS": "5", "SLURM_STEP_TASKS_PER_NODE": "3,2"})
    with pytest.raises(SettingError, match="--nproc-per-node"):
        find_launch({**TORCHRUN, "LOCAL_WORLD_SIZE": "3"})


@pytest.mark.parametrize(
    ("variables", "settings", "message"),
    [
        (TORCHRUN, {}, "torchrun started 8 processes, 4 on each of 2 machines, but.*nodes=1 and"),
        (TORCHRUN, {"devices": 8}, "Give --set trainer.nodes=2 --set trainer.devices=4"),
        (STEP, {"devices": 4, "nodes": 2}, "slurm started 8 processes, 2 on each of 4 machines"),
        (ALLOCATION, {"devices": 2, "nodes": 4}, "was started alone.*srun --ntasks-per-node 2"),
        (
            {**TORCHRUN, "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "RANK": "0"},
            {"devices": 2},
            "torchrun started 1 processes",
        ),
    ],
)
def test_processes_that_the_settings_do_not_count_on_are_refused(
    variables: dict[str, str], settings: dict[str, int], message: str
):
    with pytest.raises(SettingError, match=re.compile(message)):
        require_launch_fits(find_launch(variables), TrainerSettings(**settings))


def test_what_fits_is_let_through():
    require_launch_fits(find_launch(TORCHRUN), TrainerSettings(devices=4, nodes=2))
    require_launch_fits(find_launch(STEP), TrainerSettings(devices=2, nodes=4))
    require_launch_fits(find_launch({}), TrainerSettings(devices=2))
    require_launch_fits(find_launch(ALLOCATION), TrainerSettings())
