"""Downloads the wheels of deps.json into .deps/downloads and unpacks the members that tokenway uses.

    .deps/venv/bin/python scripts/fetch.py

Each folder (`into`) is made whole and renamed into place, with the checksums of its wheels beside it, so an
interrupted run leaves no half-made folder and a later one repeats only what is missing. A download goes on where it
stopped. The wheels are deleted once they are unpacked. A wheel laid in .deps/downloads by hand is used as it is if
its checksum fits: that is the way to set up a machine without a network.

The venv's pip says which index to ask and how to reach it (certificate, proxy, password), so the user's own pip
configuration holds here too. pip itself starts a broken download anew, which is too much for half a gigabyte.
"""

import fnmatch
import hashlib
import html
import json
import os
import platform
import re
import shutil
import sys
import time
import urllib.parse
import zipfile
from pathlib import Path

from pip._internal.commands import create_command

ROOT = Path(__file__).resolve().parent.parent
DEPS = ROOT / ".deps"
DOWNLOADS = DEPS / "downloads"
ATTEMPTS = 4
CHUNK = 1 << 20


def main():
    system = f"{platform.system()}-{platform.machine()}".lower()
    platforms = json.loads((ROOT / "scripts/deps.json").read_text())
    if system not in platforms:
        sys.exit(f"there are no libtorch and nats-server packages for {system} in scripts/deps.json; "
                 f"supported: {', '.join(platforms)}")
    folders = {}
    for wheel in platforms[system]:
        folders.setdefault(wheel["into"], []).append(wheel)
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    command = create_command("download")
    # `pip download` would keep a second copy of each wheel in pip's cache.
    options, _ = command.parse_args(["--no-cache-dir"])
    with command.main_context():
        index = Index(options, command.get_default_session(options))
        for folder, wheels in folders.items():
            install(folder, wheels, index)


class Index:
    """The package indexes that pip is configured for, reached through pip's own HTTP session."""

    def __init__(self, options, session):
        self.urls = [] if options.no_index else [options.index_url, *options.extra_index_urls]
        self.session = session

    def url_of(self, wheel):
        for url in self.urls:
            page = self.session.get(f"{url.rstrip('/')}/{wheel['project']}/", headers={"Accept": "text/html"})
            link = re.search(rf'href="([^"#]*/{re.escape(wheel["file"])})[#"]', page.text) if page.ok else None
            if link:
                return urllib.parse.urljoin(page.url, html.unescape(link[1]))
        raise LookupError(f"not found at pip's index ({', '.join(self.urls) or 'pip is configured with no-index'})")


def install(folder, wheels, index):
    """Makes DEPS/folder, unless it was made from the same `wheels`."""
    stamp = DEPS / folder / "wheels.json"
    wanted = json.dumps(wheels, indent=2)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    for wheel in wheels:
        fetch(wheel, index)
    unpack(folder, wheels, wanted)
    for wheel in wheels:
        (DOWNLOADS / wheel["file"]).unlink()


def fetch(wheel, index):
    """Leaves the wheel, checksum verified, in DOWNLOADS."""
    path = DOWNLOADS / wheel["file"]
    part = path.with_name(path.name + ".part")
    if path.is_file():
        if sha256(path) == wheel["sha256"]:
            print(f"{path.name} is here already", flush=True)
            return
        print(f"{path.name} has another checksum: downloading it anew", flush=True)
        path.unlink()
    attempt = 0
    while attempt < ATTEMPTS:
        had = size(part)
        try:
            download(index.session, index.url_of(wheel), part)
            if sha256(part) == wheel["sha256"]:
                part.rename(path)
                return
            part.unlink()
            if not had:
                sys.exit(f"{wheel['file']} came with a checksum that is not the one in scripts/deps.json")
            problem = "the checksum does not fit what an earlier run had begun; downloading it anew"
        # The session's own errors are all IOErrors, but a body cut short can surface as urllib3's.
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        # One that brought bytes is not held against the rest.
        attempt = 1 if size(part) > had else attempt + 1
        print(f"{wheel['file']}: {problem}", file=sys.stderr, flush=True)
        time.sleep(2 ** attempt)
    sys.exit(f"{wheel['file']} could not be downloaded. Run the same command again to go on where it stopped, "
             f"or put the file into {DOWNLOADS} by hand.")


def download(session, url, part):
    """Appends to `part` what it still lacks of `url`."""
    have = size(part)
    # A compressed answer could not be resumed.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with session.get(url, headers=headers, stream=True) as answer:
        if answer.status_code == 416:
            return  # `part` is whole, or longer than the file: its checksum tells.
        answer.raise_for_status()
        if answer.status_code != 206:
            have = 0  # The server cannot resume and sends everything.
        total = have + int(answer.headers.get("Content-Length", 0))
        progress = Progress(part.name[: -len(".whl.part")].split("-cp")[0].split("-py3")[0], have, total)
        with part.open("ab" if have else "wb") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                progress.add(len(chunk))
        progress.end()
        if progress.done < total:
            raise OSError(f"{progress.done} of {total} bytes came")


class Progress:
    """A bar on a terminal, else a line every few seconds."""

    LINE_SECONDS = 5

    def __init__(self, name, done, total):
        self.name, self.done, self.first, self.total = name, done, done, total
        self.tty = sys.stdout.isatty()
        self.start = self.shown = time.monotonic()
        print(f"{name}: {'going on at' if done else 'downloading'} {mib(done or total)} MiB"
              f"{f' of {mib(total)} MiB' if done else ''}", flush=True)

    def add(self, n):
        self.done += n
        if time.monotonic() - self.shown >= (0.1 if self.tty else self.LINE_SECONDS):
            self.show()

    def show(self):
        self.shown = time.monotonic()
        rate = (self.done - self.first) / max(self.shown - self.start, 1e-3)
        share = self.done / self.total if self.total else 0
        left = int((self.total - self.done) / rate) if rate and self.total else 0
        text = f"{share:4.0%}  {mib(self.done)} of {mib(self.total)} MiB  {mib(rate)} MiB/s  {left // 60}:{left % 60:02} left"
        if self.tty:
            bar = ("#" * round(30 * share)).ljust(30, "-")
            print(f"\r[{bar}] {text}\x1b[K", end="", flush=True)
        else:
            print(f"  {text}", flush=True)

    def end(self):
        self.show()
        if self.tty:
            print()


def size(path):
    return path.stat().st_size if path.is_file() else 0


def mib(n):
    return f"{n / (1 << 20):.1f}"


def sha256(path):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def unpack(folder, wheels, stamp):
    """Makes DEPS/folder of the members that `wheels` name; `stamp` is written into it."""
    new, final = DEPS / f"{folder}.part", DEPS / folder
    shutil.rmtree(new, ignore_errors=True)
    for wheel in wheels:
        print(f"unpacking {wheel['file']}", flush=True)
        with zipfile.ZipFile(DOWNLOADS / wheel["file"]) as archive:
            for pattern in wheel["members"]:
                members = fnmatch.filter(archive.namelist(), pattern)
                if not members:
                    sys.exit(f"{wheel['file']} holds no {pattern}")
                for member in members:
                    path = archive.extract(member, new)
                    mode = archive.getinfo(member).external_attr >> 16
                    if mode:
                        os.chmod(path, mode & 0o777)
    (new / "wheels.json").write_text(stamp)
    shutil.rmtree(final, ignore_errors=True)
    new.rename(final)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nstopped; the next run goes on from here")
