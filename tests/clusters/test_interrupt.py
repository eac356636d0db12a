import signal
import subprocess
import sys
import threading
import time

import pytest
from chat_server import ChatServer, Say, answer

from tag2mask.clusters import make_clusters
from tag2mask.clusters.transcript import Transcript
from tag2mask.config import ClusterSettings

PROGRAM = """
import sys
from pathlib import Path
from tag2mask.clusters import make_clusters
from tag2mask.config import ClusterSettings
settings = ClusterSettings(llm="fake", llm_url=sys.argv[1])
make_clusters(("cat", "dog", "car"), settings, transcript=Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_process_stopped_half_way(tmp_path, no_waiting, how):
    path = tmp_path / "c.transcript.jsonl"
    count = 0
    go = threading.Event()

    def script(request):
        nonlocal count
        count += 1
        if count > 4:  # four answers at once, the others while the process is being stopped
            server.lock.release()
            go.wait(60)
            server.lock.acquire()
        return Say(answer("cat dog", "car"))

    with ChatServer(script) as server:
        command = [sys.executable, "-c", PROGRAM, server.url, path]
        # A shell has what it starts in the background, these tests perhaps, ignore SIGINT.
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while not path.is_file() or path.read_text().count('"reply"') < 4:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.01)
        process.send_signal(how)
        time.sleep(0.5)
        go.set()
        process.communicate(timeout=30)
        assert process.returncode
        stored = len(Transcript(path))
        assert stored == (10 if how == signal.SIGINT else 4), (
            "Ctrl-C waits for what is paid for, a kill cannot"
        )
        before = len(server.requests)
        clusters = make_clusters(
            ("cat", "dog", "car"),
            ClusterSettings(llm="fake", llm_url=server.url),
            transcript=path,
        )
        assert len(server.requests) - before == 10 - stored + 2
    assert clusters.as_mapping == {"group of cat": ["cat", "dog"], "group of car": ["car"]}
