"""What the machine is, read from recorded machines and from this one."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

import pytest
from llama_bench_core import host, programs
from llama_bench_core.cpu import ARM_CORES, model_name
from llama_bench_core.gpu import GPU
from llama_bench_core.programs import Finished
from llama_bench_core.tree import Tree, cpu_list

CASES = Path(__file__).parents[2] / "cases" / "host"
GIB = 1 << 30


def no_gpu(argv, _timeout_seconds):
    """A machine without the driver's program."""
    raise FileNotFoundError(argv[0])


def machine(name: str, folder: Path) -> str:
    """Write a recorded machine out as a tree of files, and say where."""
    text = (CASES / f"{name}.txt").read_text()
    for section in text.removeprefix("== ").split("\n== "):
        path, _, body = section.partition("\n")
        if path.strip() == "topology":
            topology(folder, body)
            continue
        file = folder / path.strip().lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body.rstrip() + "\n")
    return str(folder)


def topology(folder: Path, body: str) -> None:
    """Write the small files of sysfs from lines ``CPU PACKAGE CORE SIBLINGS``."""
    for line in body.split("\n"):
        if line.strip():
            cpu, package, core, siblings = line.split()
            place = folder / f"sys/devices/system/cpu/cpu{cpu}/topology"
            place.mkdir(parents=True, exist_ok=True)
            (place / "physical_package_id").write_text(f"{package}\n")
            (place / "core_id").write_text(f"{core}\n")
            (place / "thread_siblings_list").write_text(f"{siblings}\n")


def facts_of(name: str, folder: Path, **kwargs) -> host.HostFacts:
    return host.gather(root=machine(name, folder), run=kwargs.pop("run", no_gpu), **kwargs)


@pytest.mark.parametrize(
    ("name", "model", "logical", "physical", "threads", "mask", "hypervisor", "container"),
    [
        ("aws-m5.large", "Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz", 2, 1, 1, "0x1", "kvm", ""),
        ("aws-t2.large", "Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", 2, 2, 2, "", "xen", ""),
        ("aws-c7g", "AWS Graviton3 (Neoverse-V1)", 2, 2, 2, "", "kvm", ""),
        ("gcp-epyc-16", "AMD EPYC 7B13", 16, 8, 8, "0xff", "kvm", ""),
        ("two-sockets-8260m", "Intel(R) Xeon(R) Platinum 8260M CPU @ 2.40GHz", 96, 48, 48, "0xffffffffffff", "", ""),
        ("container-v2", "AMD EPYC 7B13", 4, 2, 1, "", "unknown", "docker"),
        ("container-v1", "AMD EPYC 7B13", 4, 2, 2, "0x5", "unknown", "docker"),
        ("firecracker-2", "AMD EPYC", 2, 2, 2, "", "unknown", ""),
    ],
)
def test_recorded_machines(name, model, logical, physical, threads, mask, hypervisor, container, tmp_path):
    """CPU, cores, threads, mask and virtualisation of each recorded machine are what its owner rents."""
    facts = facts_of(name, tmp_path)
    assert (facts.cpu_model, facts.logical_cpus, facts.physical_cores) == (model, logical, physical)
    assert facts.smt is (logical > physical)
    assert host.recommended_threads(facts) == threads
    assert host.affinity_mask(facts) == mask
    assert (facts.hypervisor, facts.container) == (hypervisor, container)


def test_a_quota_and_a_limit_of_control_groups_v2_are_seen(tmp_path):
    """A container's quota and memory limit count, not the host's memory; its file cache counts as available."""
    facts = facts_of("container-v2", tmp_path)
    assert facts.cpu_quota == 1.5
    assert facts.memory_bytes == 2 * GIB
    assert facts.memory_available_bytes == 2 * GIB - (734003200 - 524288000)


def test_a_quota_and_a_limit_of_control_groups_v1_are_seen(tmp_path):
    """With v1 the group's path is the host's; the mount's root is then the container's own group."""
    facts = facts_of("container-v1", tmp_path)
    assert facts.cpu_quota == 2.0
    assert (facts.memory_bytes, facts.memory_available_bytes) == (4 * GIB, 3 * GIB)


def test_the_tightest_of_nested_groups_counts(tmp_path):
    """A limit on a parent slice binds although the group itself has none."""
    root = machine("container-v2", tmp_path)
    (tmp_path / "proc/self/cgroup").write_text("0::/user.slice/app.service\n")
    inner = tmp_path / "sys/fs/cgroup/user.slice/app.service"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "cpu.max").write_text("50000 100000\n")
    facts = host.gather(root=root, run=no_gpu)
    assert facts.cpu_quota == 0.5
    assert facts.memory_bytes == 2 * GIB
    assert host.recommended_threads(facts) == 1


def test_an_unlimited_group_leaves_the_machine_as_it_is(tmp_path):
    """Quota -1 and a limit near 2^63 are v1's way to say that there is none."""
    facts = facts_of("firecracker-2", tmp_path)
    assert facts.cpu_quota is None
    assert facts.memory_bytes == 24684084 * 1024
    assert facts.transparent_hugepages == "madvise"
    assert facts.load1 == 0.99


def test_nodes_governors_clock_and_turbo_of_a_two_socket_machine(tmp_path):
    """NUMA nodes come with CPUs and memory; governors that differ are all named; no_turbo=1 is turbo off."""
    facts = facts_of("two-sockets-8260m", tmp_path)
    assert [(node.node, node.cpus) for node in facts.numa_nodes] == [(0, "0-23,48-71"), (1, "24-47,72-95")]
    assert sum(node.memory_bytes for node in facts.numa_nodes) == facts.memory_bytes
    assert facts.governor == "performance,powersave"
    assert (facts.clock_mhz, facts.clock_max_mhz, facts.turbo) == (1000.0, 2401.0, "off")
    assert facts.swap_bytes == 4194300 * 1024


def test_an_affinity_narrower_than_the_machine_counts(tmp_path):
    """Only cores with a usable thread count, and a core cut in half is no longer hyper-threaded."""
    root = machine("gcp-epyc-16", tmp_path)
    (tmp_path / "proc/self/status").write_text("Cpus_allowed_list:\t2-4,10\n")
    facts = host.gather(root=root, run=no_gpu)
    assert facts.cores == ((2, 10), (3,), (4,))
    assert host.affinity_mask(facts) == "0x1c"
    assert host.affinity_mask(facts, threads=2) == ""


def test_cores_come_from_cpuinfo_when_sysfs_is_hidden(tmp_path):
    """A sandbox without /sys still tells cores by /proc/cpuinfo, and counts logical CPUs when that is silent too."""
    machine("aws-m5.large", tmp_path)
    for place in sorted((tmp_path / "sys").rglob("*"), reverse=True):
        place.rmdir() if place.is_dir() else place.unlink()
    assert host.gather(root=str(tmp_path), run=no_gpu).physical_cores == 1
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: gVisor CPU\n\nprocessor\t: 1\n")
    assert host.gather(root=str(tmp_path), run=no_gpu).physical_cores == 2


def test_an_empty_tree_gives_facts_that_say_nothing(tmp_path):
    """Where nothing can be read there is still one core to run on, and no error."""
    facts = host.gather(root=str(tmp_path), run=no_gpu)
    assert (facts.logical_cpus, facts.physical_cores, facts.cpu_model, facts.load1) == (1, 1, "", None)
    assert host.recommended_threads(facts) == 1


@pytest.mark.parametrize(
    ("implementer", "part", "vendor", "name"),
    [
        ("0x41", "0xd0c", "Amazon EC2", "AWS Graviton2 (Neoverse-N1)"),
        ("0x41", "0xd4f", "Google", "Google Axion (Neoverse-V2)"),
        ("0x41", "0xd0c", "Hetzner", "Ampere Altra (Neoverse-N1)"),
        ("0x41", "0xd49", "", "Neoverse-N2"),
        ("0x6d", "0xd49", "Microsoft Corporation", "Azure Cobalt 100"),
        ("0xc0", "0xac3", "", "AmpereOne"),
        ("0x99", "0x123", "", "ARM implementer 0x99 part 0x123"),
    ],
)
def test_arm_cores_get_names(implementer, part, vendor, name):
    """On ARM the numbers of /proc/cpuinfo become a name, unknown ones stay numbers."""
    assert model_name([{"CPU implementer": implementer, "CPU part": part}], vendor) == name


def test_the_cores_of_the_table_are_distinct():
    """No two entries of the table share a name but the one core that two makers number alike."""
    assert len(set(ARM_CORES.values())) == len(ARM_CORES)


# Recorded answers: 8x A800 and GB10 from public pages, cut to two lines; the error is the driver's own text.
A800 = """0, NVIDIA A800-SXM4-80GB, 81920, 8404, 580.95.05, 8.0
1, NVIDIA A800-SXM4-80GB, 81920, 12549, 580.95.05, 8.0
"""


def answering(output, status=0, refuse=""):
    """A driver's program that gives a recorded answer, and refuses queries that name a field."""

    def run(argv, _timeout_seconds):
        if refuse and refuse in argv[1]:
            return Finished(2, f'Field "{refuse}" is not a valid field to query.\n', "")
        return Finished(status, output, "")

    return run


def test_gpus_are_read_from_the_driver(tmp_path):
    """Names, memory in bytes, driver and compute capability of each GPU."""
    gpus = facts_of("gcp-epyc-16", tmp_path, run=answering(A800)).gpus
    assert gpus[1] == GPU(1, "NVIDIA A800-SXM4-80GB", 80 * GIB, 12549 << 20, "580.95.05", "8.0")
    assert len(gpus) == 2


def test_a_gpu_without_memory_of_its_own_has_the_machines(tmp_path):
    """A GB10 shares the machine's memory, and its driver says [N/A]."""
    facts = facts_of("gcp-epyc-16", tmp_path, run=answering("0, NVIDIA GB10, [N/A], [N/A], 580.95.05, 12.1\n"))
    assert facts.gpus[0].memory_bytes == facts.memory_bytes
    assert facts.gpus[0].memory_free_bytes == facts.memory_available_bytes


def test_an_old_driver_is_asked_without_compute_capability(tmp_path):
    """A driver that refuses the field still tells its GPUs."""
    run = answering("0, Tesla M60, 7618, 7600, 450.80.02\n", refuse="compute_cap")
    assert facts_of("gcp-epyc-16", tmp_path, run=run).gpus == (
        GPU(0, "Tesla M60", 7618 << 20, 7600 << 20, "450.80.02", ""),
    )


def slow(_argv, _timeout_seconds):
    raise TimeoutError("nvidia-smi did not end")


@pytest.mark.parametrize("run", [no_gpu, slow, answering("NVIDIA-SMI has failed", status=9), answering("garbage\n")])
def test_no_gpus_where_the_driver_does_not_answer(run, tmp_path):
    """A missing, hanging, failing or babbling program means no GPU, not an error."""
    assert facts_of("gcp-epyc-16", tmp_path, run=run).gpus == ()


def test_facts_survive_json(tmp_path):
    """What is written into a journal comes back as the same facts, and a newer version's extra key does no harm."""
    facts = facts_of("two-sockets-8260m", tmp_path, run=answering(A800), paths=["/"])
    data = json.loads(json.dumps(facts.to_dict()))
    assert host.HostFacts.from_dict({**data, "later": 1}) == facts


def test_room_is_told_for_a_folder_that_is_not_made_yet(tmp_path):
    """The file system of the nearest folder that exists is the one that will hold it."""
    disk = host.gather(run=no_gpu, paths=[str(tmp_path / "not" / "there")]).disks[0]
    stat = os.statvfs(tmp_path)
    assert disk.total_bytes == stat.f_blocks * stat.f_frsize
    assert 0 < disk.free_bytes <= disk.total_bytes


def test_this_machine_is_told_as_the_system_tells_it():
    """Read for real: CPUs of the affinity, memory of sysconf or less, and no host name in the facts."""
    facts = host.gather()
    assert facts.logical_cpus == len(os.sched_getaffinity(0))
    assert 1 <= facts.physical_cores <= facts.logical_cpus
    assert facts.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 1.01
    assert facts.kernel == os.uname().release
    assert facts.python == ".".join(str(part) for part in sys.version_info[:3])
    assert platform.node() not in json.dumps(facts.to_dict()).split('"')


def test_a_cpus_affinity_is_followed_for_real():
    """A process confined to one CPU counts one."""
    one = min(os.sched_getaffinity(0))
    code = "import sys; sys.path.insert(0, sys.argv[1]); from llama_bench_core import host; print(host.gather().cores)"
    done = programs.run(
        ["taskset", "-c", str(one), sys.executable, "-c", code, str(Path(host.__file__).parents[1])], 60.0
    )
    assert done.stdout.strip() == f"(({one},),)"


@pytest.mark.parametrize(("text", "cpus"), [("0-3,8", (0, 1, 2, 3, 8)), ("", ()), (None, ()), ("x", ()), ("7", (7,))])
def test_cpu_lists(text, cpus):
    """The kernel's list format, and nonsense as an empty list."""
    assert cpu_list(text) == cpus


def test_a_tree_answers_none_for_what_can_not_be_read(tmp_path):
    """Folders, missing files and files of text are no numbers, and never an error."""
    (tmp_path / "word").write_text("max\n")
    tree = Tree(str(tmp_path))
    assert (tree.text("/"), tree.text("/no"), tree.number("/word"), tree.names("/word")) == (None, None, None, [])
