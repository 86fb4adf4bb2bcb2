"""`python -m bench`, or `make bench`: measure, print the tables, write them down."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.contestants import contestants
from bench.figures import Sample
from bench.mailboxes import KINDS, Box, fill
from bench.process import Failed
from bench.report import Measured, document, text, write
from bench.rounds import measure
from tests.support.dovecot import Dovecot, DovecotMissing

SECONDS_EACH = 900.0
SECONDS_EACH_QUICK = 60.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few hundred messages, one round; writes nothing down")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is taken (default: 3)")
    names = [kind.name for kind in KINDS]
    parser.add_argument("--only", action="append", choices=names, help="this sort of mail; may be given again")
    parser.add_argument("--scratch", type=Path, help="where to work (default: a temporary folder); needs about 10 GB")
    parser.add_argument("--json", type=Path, help="write all samples to this file, and nothing else")
    return parser.parse_args()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    wish = arguments()
    order, versions, left_out = contestants()
    for one in left_out:
        say(f"left out: {one}")
    began, clock = datetime.now(UTC), time.monotonic()
    samples: list[Sample] = []
    boxes: list[Box] = []
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=wish.scratch))
    limit = SECONDS_EACH_QUICK if wish.quick else SECONDS_EACH
    try:
        with Dovecot() as server:
            for kind in KINDS:
                if wish.only and kind.name not in wish.only:
                    continue
                folder = scratch / kind.name
                folder.mkdir()
                say(f"{kind.name}: delivering {kind.about}")
                box = fill(server, kind, folder, quick=wish.quick)
                say(f"{kind.name}: {box.count} messages, {box.octets / 1e6:.0f} MB")
                rounds = (1 if wish.quick else wish.rounds) if kind.whole else 0
                boxes.append(box)
                samples += measure(server, box, order, folder, rounds=rounds, limit=limit, say=say)
                shutil.rmtree(box.account.home)
            measured = Measured(
                began=began,
                minutes=(time.monotonic() - clock) / 60,
                rounds=1 if wish.quick else wish.rounds,
                quick=wish.quick,
                contestants=[one.name for one in order],
                left_out=left_out,
                versions=versions,
                boxes=boxes,
                samples=samples,
            )
            print(text(measured))
            if wish.json:
                wish.json.write_text(document(measured), encoding="utf-8")
            elif wish.quick or wish.only or left_out:
                say("nothing written down: only a run of everything, with everybody, goes to the page")
            else:
                for path in write(measured):
                    say(f"wrote {path}")
    except (Failed, DovecotMissing) as problem:
        say(f"error: {problem}")
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def other_subject(words: list[str]) -> int | None:
    """Run what has a page section and arguments of its own; None when the first word names none of these."""
    if words[:1] == ["latency"]:
        from bench import latency

        return latency.main(words[1:])
    if words[:1] == ["growth"]:
        from bench import growth

        return growth.main(words[1:])
    if words[:1] == ["s3"]:
        from bench import s3

        return s3.main(words[1:])
    if words[:1] == ["bandwidth"]:
        from bench import bandwidth

        return bandwidth.main(words[1:])
    if words[:1] == ["watch"]:
        from bench import watch

        return watch.main(words[1:])
    if words[:1] == ["pop3"]:
        from bench import pop3

        return pop3.main(words[1:])
    if words[:1] == ["parity"]:
        from bench import parity

        return parity.main(words[1:])
    if words[:1] == ["damage"]:
        from bench import damage

        return damage.main(words[1:])
    if words[:1] == ["prune"]:
        from bench import prune

        return prune.main(words[1:])
    if words[:1] == ["soak"]:
        from bench import soak

        return soak.main(words[1:])
    return None


if __name__ == "__main__":
    other = other_subject(sys.argv[1:])
    sys.exit(main() if other is None else other)
