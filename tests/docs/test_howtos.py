"""The how-to pages: their steps, typed into one shell from the first to the last, print the output that they show."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from harness.users import HIS_VIRTFS

from .markdown import ROOT, Block, blocks, section
from .tour import Tour, prints_what_it_says, touring, touring_without_root

pytestmark = pytest.mark.timeout(180)  # a page has many steps, each of which may take as long as PATIENCE

_BEGIN = f"ln -s {ROOT} ~/virtfs; exec 2>&1"


def follow(shell: Tour, page: str) -> None:
    follow_all(shell, blocks((ROOT / f"doc/{page}.md").read_text()))


def follow_all(shell: Tour, steps: list[Block]) -> None:
    for step in steps:
        if step.language == "sh":
            prints_what_it_says(shell, step)


@pytest.mark.parametrize("page", ["stack-author", "capture"])
def test_a_page_prints_what_it_says(page: str) -> None:
    with touring() as shell:
        shell.run(_BEGIN, 0)
        follow(shell, page)


def test_the_page_for_stack_authors_without_a_range_of_users() -> None:
    """In `virtfs shell`, an ordinary user without a line in /etc/subuid leaves out the words that the page names."""
    page = (ROOT / "doc/stack-author.md").read_text()
    said = "leave out\n`owner nobody` and `runuser -u nobody --`, and type `tshark` in place of `tcpdump -nt`."
    assert said in page
    for word in (" owner nobody", "runuser -u nobody -- "):
        page = page.replace(word, "")
    page = page.replace("tcpdump -nt", "tshark").replace("/tmp/", "~/")
    with touring_without_root(ids="") as shell:
        shell.run("ln -s /mnt/checkout ~/virtfs; exec 2>&1", 0)
        for step in blocks(page):
            if "| tshark -r -" in step.text:
                assert "Echo (ping) reply" in shell.run(step.text, 0)
            elif step.language == "sh":
                prints_what_it_says(shell, step)


def test_a_capture_of_the_mount_has_each_end_of_a_cable() -> None:
    """The fields and the filter of the page tell apart the two copies of a frame."""
    page = (ROOT / "doc/capture.md").read_text()
    (fields,) = re.findall(r"`(tshark -r - -T fields .*?)`", page)
    (selects,) = re.findall(r"`(-Y .*?)`", page)
    with touring() as shell:
        shell.run("for n in 1 2; do echo create $n up >ctl; done; echo cable 1 2 >ctl; exec 5<pcap", 0)
        shell.run("echo virt2 backlog 9 >ctl; ip address add 10.0.1.1/24 dev tap1; ping -c1 -W1 10.0.1.2", 0)
        shell.run("dd <&5 bs=1M count=1 status=none >~/all.pcapng; exec 5<&-", 0)
        read = f"<~/all.pcapng {fields.replace('ip.src', 'arp.opcode')}"
        both = shell.run(f"{read} 2>/dev/null", 0).splitlines()
        assert both.count("virt1\t1") == both.count("virt2\t1") > 0
        one = shell.run(f"{read} {selects} 2>/dev/null", 0).splitlines()
        assert one == [line for line in both if line.startswith("virt1")]
        shell.run("echo destroy all >ctl", 0)


def test_tcpreplay_at_a_tap() -> None:
    """Its two errors are in doc/troubleshooting.md, and their remedies work."""
    rows = (ROOT / "doc/troubleshooting.md").read_text().splitlines()
    is_file, is_busy = (next(row for row in rows if words in row) for words in ("valid Tcpreplay", "create tuntap"))
    (renames,) = re.findall(r"`(ip link set tap3 down; .*?)`", is_busy)
    replay = "tcpreplay -t -i {} ~/one.pcap 2>&1"
    with touring() as shell:
        shell.run("echo create 3 up inet 10.0.3.1/24 history 64K >ctl; ping -c1 -W1 10.0.3.2", 0)
        shell.run("cat virt3/history | tcpdump -r - -c1 -w - >~/one.pcap 2>/dev/null", 0)
        assert re.findall("`(.*?)`", is_file)[0] in shell.run(replay.format("tap3"), 2)
        assert re.findall("`(.*?)`", is_busy)[0] in shell.run(f"cd /; {replay.format('tap3')}", 2)
        sent = "Successful packets:        1"
        assert sent in shell.run(f"cd /mnt/virt; {renames}; {replay.format('lab3')}", 2)
        shell.run("ip link set lab3 down; ip link set lab3 name tap3; ip link set tap3 up", 0)
        shell.run("mount -t sysfs sysfs /sys", 0)
        assert sent in shell.run(f"cd /; {replay.format('tap3')}", 2)
        shell.run("umount /sys; cd /mnt/virt; echo destroy all >ctl", 0)


def test_a_capture_of_an_earlier_run_is_replayed() -> None:
    """virt3 has another address in each run, so the frames of the program are found by the address in the capture."""
    page = (ROOT / "doc/stack-author.md").read_text().replace("/tmp/", "/mnt/")  # another test follows the page too
    steps = [step for step in blocks(page) if step.language == "sh"]
    (connect,) = (step for step in steps if "-o /mnt/responder" in step.text)
    (replay,) = (step for step in steps if ">~/run.pcap" in step.text)
    capture, *rest = replay.text.splitlines()
    assert capture == "cat virt3/history >~/run.pcap"
    *_, request, reply = replay.output.splitlines(keepends=True)
    more = "".join((request + reply).replace("\t1", f"\t{number}") for number in (1, 2, 3))
    with touring() as shell:
        shell.run(_BEGIN, 0)
        for step in steps[: steps.index(replay)]:
            prints_what_it_says(shell, step)
        shell.run("ping -q -c3 -i0.1 10.0.3.2 >/dev/null", 0)
        before = shell.run(f"{capture}; cat virt3/address; echo destroy all >ctl; wait", 2)
        prints_what_it_says(shell, connect)
        assert shell.run("cat virt3/address", 1).strip() not in before
        again = "\n".join(rest).replace("= 1 ]", "= 4 ]")
        prints_what_it_says(shell, replace(replay, text=again, output=replay.output + more))
        shell.run("echo destroy all >ctl; wait", 1)


def test_a_lesson_without_its_mac_addresses_keeps_the_descriptions() -> None:
    (sed,) = re.findall("^(sed .*) ctl >", _TEACHING, re.MULTILINE)
    lesson = "create 3 link b2:0a:9b:0b:0e:03 taplink f6:5c:3e:12:6b:ed up description the link to the printer\n"
    done = subprocess.run(["bash", "-c", sed], input=lesson, capture_output=True, text=True)
    assert done.stdout == "create 3 up description the link to the printer\n"


def test_the_wire_through_ssh_can_be_made_again() -> None:
    """ssh leaves its socket behind. It replaces the socket the next time, and ends if it cannot listen there."""
    (ssh,) = re.findall("^(ssh -N .*)", _TEACHING, re.MULTILINE)
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed")
    done = subprocess.run(["bash", "-c", ssh.replace("-N", "-G")], capture_output=True, text=True)
    wanted = {"streamlocalbindunlink yes", "exitonforwardfailure yes", "localforward /tmp/wire7 /tmp/wire7"}
    assert wanted <= {*done.stdout.splitlines()}, done.stderr


_TEACHING = (ROOT / "doc/teaching.md").read_text()
_FOR_ROOT = section(_TEACHING, "One mount for the class")
# Users who exist only for this shell and its server.
_STUDENTS = """
cp /etc/passwd /etc/group /run
printf '%s:x:5432%s:\\n' anna 1 ben 2 >>/run/group
echo lab:x:54323:anna,ben >>/run/group
printf '%s:x:5432%s:5432%s::/:/bin/sh\\n' anna 1 1 ben 2 2 >>/run/passwd
for file in passwd group; do mount --bind /run/$file /etc/$file; done
"""
# The commands that anna types, in a checkout that she can reach.
_ANNA = f"""
mkdir /mnt/checkout; mount --rbind {ROOT} /mnt/checkout
runuser -u anna -- env PYTHONPATH=/mnt/checkout bash -ec 'virtfs() {{ {" ".join(HIS_VIRTFS)} "$@"; }}
%s'
"""


# The shell of another student who has done the lessons before.
_STUDENT = " ".join([*HIS_VIRTFS, "shell", "sh", "-ec", "'echo create 3 up inet 10.0.3.1/24 >ctl\n%s'"])


def test_the_page_for_teachers_without_root() -> None:
    """The students who join their shells by a wire or a switch have done the lessons before.

    A job of the student, such as a capture, runs during all lessons. They neither wait for it nor end it.
    """
    joined = 0
    with touring_without_root(before="mount -t tmpfs -o mode=1777 tmpfs /tmp") as shell:
        shell.run("cat pcap >~/own.pcapng & own=$!", 0)
        for step in blocks(_TEACHING.replace(_FOR_ROOT, "")):
            if step.language == "sh":
                prints_what_it_says(shell, step)
            elif "unix-listen:" in step.text:
                first, *second = step.text.splitlines()
                assert shell.run(first, 0) == ""
                assert re.search(r"icmp_seq=3 .* time=[4-9]\d", shell.run(_STUDENT % "\n".join(second), 0))
                joined += 1
            elif "unix:/tmp/class11" in step.text:
                other = step.text.replace("10.0.9.1", "10.0.9.2").replace("class11", "class12")
                ping = _STUDENT.replace("'", '"') % f"{other}ping -c1 -w20 10.0.9.1"
                assert "from 10.0.9.1: icmp_seq=" in shell.run(_STUDENT % f"{step.text}{ping}", 0)
                joined += 1
        assert shell.run("kill $own && wait $own; echo $?; rm ~/own.pcapng", 1) == "143\n"
    assert joined == 2


def test_the_page_for_teachers_with_root() -> None:
    """What a student has open ends when the interface is taken away. A capture would last until Ctrl-C."""
    with touring() as shell:
        shell.run(f"exec 2>&1; {_STUDENTS}", 0)
        *steps, last = [step for step in blocks(_FOR_ROOT) if step.language == "sh"]
        follow_all(shell, steps)
        (anna,) = (step.text for step in blocks(_FOR_ROOT) if "virtfs ls" in step.text)
        said = shell.run(_ANNA % anna.replace("cat virt1/pcap | tcpdump -nr -", "head -c4 virt1/pcap | xxd -p"), 0)
        assert said.splitlines()[-1] == "0a0d0d0a", said
        watched = "cat virt1/history_size; runuser -u anna -- head -c4 virt2/pcap | xxd -p"
        assert shell.run(watched, 2) == "64K\n0a0d0d0a\n"
        assert shell.run("runuser -u ben -- cat virt2/hex >/dev/null 2>&1 & cat virt2/wait/reader", 1) == "1\n"
        prints_what_it_says(shell, last)
        shell.run("echo down >virt1/ctl; echo filter arp >virt2/ctl", 0)
        seen = shell.run("virtfs ls", 0)
        assert re.search("virt1 +down", seen)
        assert re.search("virt2 .*\n    filter arp\n", seen)
        ended = "until ! grep -q hex virt2/clients; do :; done; runuser -u ben -- cat virt2/hex"
        assert "virt2/hex: Permission denied" in shell.run(ended, 1)
        (restore,) = re.findall("`(echo destroy all >ctl; cat ~/class.ctl >ctl)`", _FOR_ROOT)
        shell.run(restore, 0)
        shell.run("cat ctl | cmp - ~/class.ctl", 0)
