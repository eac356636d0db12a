"""The server: what it refuses, and that nothing breaks it."""

import json
import os
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from tag2mask.files import read_json
from tag2mask.view.gallery import photo_id

STROKE = {"tag": "background", "points": [[5, 5], [30, 30]], "radius": 4}


def photos(server):
    status, _, body = server.ask("/api/photos")
    assert status == 200
    return json.loads(body)["rows"]


def snapshot(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in files}


SECRET = "the secret of another folder"
UP = ("..", "%2e%2e", "..%2f", "%2e%2e%2f", "%252e%252e", "..%5c", "..\\", ".%2e", "%c0%ae%c0%ae")


@pytest.mark.parametrize("start", ["/page/", "/", "/api/photos/", "/page/x/", "/view/", "/masks/"])
def test_no_path_leads_out(run, serve, start):
    (run.parent / "secret.txt").write_text(SECRET)
    (run / "view").mkdir(exist_ok=True)
    (run / "view" / "link.txt").symlink_to(run.parent / "secret.txt")
    server = serve(run)
    targets = ["secret.txt", "run/config.toml", "etc/passwd", "link.txt", "config.toml"]
    paths = [f"{start}{'/'.join([up] * n)}/{name}" for up in UP for n in (1, 3) for name in targets]
    paths += [f"{start}{name}" for name in ("link.txt", "view/link.txt", "%2fetc%2fpasswd", "%00")]
    paths += [f"{start}{quote(str(run / name), safe='')}" for name in ("config.toml", "log.txt")]
    for path in paths:
        status, _, body = server.ask(path)
        assert status in (400, 404), path
        assert SECRET.encode() not in body and b"root:" not in body and b"[classifier]" not in body


def test_a_link_out_of_the_run_folder_is_not_followed(run, serve, trained):
    """A mask, score map or kept mask that is a link to elsewhere counts as missing."""
    server = serve(run)
    row = next(row for row in photos(server) if row[1] == "train")
    at = f"/api/photos/{row[0]}"
    assert server.ask(f"{at}/mask?kind=pseudo")[0] == 200
    for ending in (".png", ".npz"):
        name = f"segmenter/masks/{row[2]}{ending}"
        (run / name).unlink()
        (run / name).symlink_to(trained / "run" / name)
    for path in ("mask?kind=pseudo", "mask?kind=before", "mask?threshold=0.3", "layer"):
        assert server.ask(f"{at}/{path}")[0] == 404, path


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:80"},  # a name that was pointed at this machine
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        {"X-Tag2mask": ""},  # as a form of another site sends it
        {"Origin": "http://localhost:3000", "Host": "localhost:8123"},
    ],
    ids=str,
)
def test_another_site_can_not_write(run, serve, headers):
    server = serve(run)
    row = next(row for row in photos(server) if row[1] == "train")
    body = json.dumps({"value": "wrong"}).encode()
    status, _, _ = server.ask(f"/api/photos/{row[0]}/judge", "POST", body, headers)
    assert status == 403
    assert not (run / "corrections.jsonl").exists()
    if "X-Tag2mask" not in headers:
        assert server.ask("/api/photos", headers=headers)[0] == 403  # nor read


def test_a_page_of_the_server_can_write(run, serve):
    server = serve(run)
    row = next(row for row in photos(server) if row[1] == "train")
    at, own = f"/api/photos/{row[0]}", {"Origin": f"http://127.0.0.1:{server.port}"}
    body = json.dumps({"value": "wrong"}).encode()
    status, headers, answer = server.ask(f"{at}/judge", "POST", body, own)
    assert status == 200 and json.loads(answer)["corrected"]["mask"] == "wrong"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    local = {"Host": "localhost:9000"}  # through a tunnel with another port
    assert server.ask("/api/photos", headers=local)[0] == 200
    for length in (str(1 << 21), "-1", "x"):
        assert server.ask(f"{at}/judge", "POST", b"", {"Content-Length": length})[0] in (400, 413)


def test_with_a_host_only_who_has_the_token_gets_in(run, serve):
    server = serve(run, host="0.0.0.0", token="s3cret")
    name = {"Host": f"lab-7:{server.port}"}
    for path in ("/", "/api/run", "/api/photos", "/page/main.js", "/?token=", "/?token=s3cre"):
        status, _, body = server.ask(path, headers=name)
        assert status == 403 and b"tag2mask view" in body, path
    status, headers, _ = server.ask("/?token=s3cret", headers=name)
    assert status == 200
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    known = {**name, "Cookie": cookie.partition(";")[0]}
    assert server.ask("/api/run", headers=known)[0] == 200
    assert (
        server.ask("/api/run", headers={**name, "Cookie": f"tag2mask-{server.port}=no"})[0] == 403
    )
    evil = {**known, "Origin": "http://evil.example"}
    row = json.loads(server.ask("/api/photos", headers=known)[2])["rows"][0]
    assert server.ask(f"/api/photos/{row[0]}/undo", "POST", b"{}", evil)[0] == 403


def test_a_thousand_random_requests_break_nothing(run, serve):
    server = serve(run)
    rows, draw = photos(server), random.Random(0)
    ids = [row[0] for row in rows]
    odd = ["", "x", "0" * 12, "..", "é", "a" * 3000]
    words = [
        *(
            "",
            "?",
            "kind=pseudo",
            "kind=truth",
            "kind=../..",
            "kind=",
            "kind=errors",
            "kind=mended",
        ),
        *(
            "threshold=nan",
            "threshold=1e9",
            "threshold=0.3",
            "threshold=-1",
            "class=3",
            "class=999",
        ),
        *("class=x", "since=-1", "since=1e308", "since=2", "%", "a=%ff%fe", "t=1&t=2"),
    ]
    ends = ["", "/thumb", "/layer", "/picture", "/heat", "/mask", "/tag", "/judge", "/none"]
    ends += ["/strokes", "/undo", "/tag", "/judge"] * 2
    strokes = [
        *(
            {**STROKE, "radius": 1e9},
            {**STROKE, "points": [[-1e12, 1e12]]},
            {**STROKE, "tag": "../x"},
        ),
        *({**STROKE, "points": []}, STROKE, {**STROKE, "points": [[1e308, -1e308], [3, 3]]}),
    ]
    bodies = [
        *(b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 9999, b"{" * 5),
        *(b'{"tag":"cat","value":"present"}', b'{"tag":"cat","value":"unknown"}'),
        *(b'{"tag":["cat"],"value":1}', b'{"value":"right","kind":"before"}', b'{"of":"x"}'),
        *(b'{"value":"right","kind":"pseudo"}', b'{"value":"wrong"}', b'{"strokes":[]}'),
        *(b'{"of":null}', b'{"value":"right","kind":"threshold"}', b'{"value":"computed"}'),
        *(json.dumps({"strokes": [stroke]}).encode() for stroke in strokes),
        json.dumps({"strokes": [STROKE], "threshold": 7}).encode(),
        json.dumps({"strokes": [STROKE], "threshold": 0.4}).encode(),
        b'{"strokes":[{"tag":"background","points":[[NaN,1]],"radius":1}]}',
    ]
    fitting = {
        "/tag": [body for body in bodies if b'"tag":"cat"' in body],
        "/judge": [body for body in bodies if b'"value"' in body],
        "/strokes": [json.dumps({"strokes": [stroke]}).encode() for stroke in strokes],
    }
    methods = ["GET"] * 5 + ["POST"] * 9 + ["PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]
    before = snapshot(run / "segmenter/masks")
    seen = set()
    for _ in range(1000):
        base, end = draw.choice([*["/api/photos/"] * 8, "/page/", "/api/", "/"]), draw.choice(ends)
        path = quote(f"{base}{draw.choice(draw.choice([ids, ids, odd]))}{end}")
        method = draw.choice(methods)
        body = draw.choice(draw.choice([bodies, fitting.get(end, bodies)]))
        body = body if method in ("POST", "PUT", "PATCH") else None
        path += "?" + draw.choice(words)
        status, _, answer = server.ask(path, method, body)
        assert status < 500, (method, path, body, answer)
        seen.add((status, path.partition("?")[0].rpartition("/")[2] if method == "POST" else ""))
    assert {200, 400, 404, 405} <= {status for status, _ in seen}
    assert {(200, end) for end in ("tag", "judge", "strokes", "undo")} <= seen
    assert server.ask("/api/run")[0] == 200 and snapshot(run / "segmenter/masks") == before
    for junk in (b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", os.urandom(500)):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            raw.sendall(junk)
    assert server.ask("/api/run")[0] == 200


def test_ten_clients_at_once(run, serve):
    server = serve(run)
    rows = [row for row in photos(server) if row[1] == "train"]

    def client(number):
        answers = []
        for row in rows[:4]:
            at = f"/api/photos/{row[0]}"
            answers += [
                server.ask(f"{at}/{end}")[0] for end in ("thumb", "layer", "mask?kind=pseudo")
            ]
            tag = {"value": "wrong" if number % 2 else "computed"}
            answers.append(server.ask(f"{at}/judge", "POST", json.dumps(tag).encode())[0])
        return answers

    with ThreadPoolExecutor(10) as pool:
        answers = [status for statuses in pool.map(client, range(10)) for status in statuses]
    assert set(answers) == {200} and len(answers) == 160
    lines = (run / "corrections.jsonl").read_text().splitlines()
    assert len(lines) == 40 and all(json.loads(line)["what"] == "mask" for line in lines)


def test_the_ids_are_those_of_the_names(run, serve):
    server = serve(run)
    for row in photos(server):
        assert row[0] == photo_id(row[1], row[2])
    assert read_json(run / "masks" / "masks.json")["classes"][0] == "background"
