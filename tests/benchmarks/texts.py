"""Memory and time of a text, by tokenizer: `python -m tests.benchmarks.texts [MB [FILE]]`.

FILE, or the King James Bible, is repeated to a text of so many megabytes (10^6 bytes), once as it
is and once with its small letters as those of four other scripts. Each tokenizer reads it in a
process of its own, first without a token cache and then with one, and counts its tokens. Printed
is the peak of the resident memory above that before the text, for each byte of the text.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra import compose, initialize_config_dir

from experiments.data.corpus import kjv, load_corpus
from experiments.data.tokenizer import TOKENIZERS, gpt2_encoding
from experiments.jobs.check import checked_settings
from experiments.machine.device import pick_device
from experiments.machine.memory import PeakMeter
from experiments.settings.compose import to_values
from experiments.settings.schema import DataSettings
from run import CONF

OTHER_LETTERS = str.maketrans("abcdefghijklmnopqrstuvwxyz", "αβγδεжзийкあいうえお日月火水木éèüöñ🍇")
MEASURE = "--measure"


def make_text(path: Path, sample: str, megabytes: int) -> None:
    """`sample`, again and again, as a file of so many megabytes."""
    content = sample.encode()
    path.write_bytes(content * (megabytes * 10**6 // len(content)))


def measure(path: str, tokenizer: str, cache: str) -> None:
    """Read the text and print what it took."""
    with initialize_config_dir(CONF, version_base="1.3"):
        values = to_values(compose("config", ["data=text", f"tokenizer={tokenizer}"]))
    settings = replace(checked_settings(values), data=DataSettings("text", path, cache_dir=cache))
    gpt2_encoding()
    meter = PeakMeter(pick_device("cpu"))
    started = time.perf_counter()
    load_corpus(settings).statistics()
    seconds = time.perf_counter() - started
    rise, size = meter.rise(), Path(path).stat().st_size
    assert rise is not None, "the system does not reset a process's peak"
    print(f"{rise / size:5.2f} bytes a byte, {seconds:6.1f} s")


def main(arguments: Sequence[str]) -> None:
    """Measure every tokenizer on both texts."""
    if arguments[:1] == [MEASURE]:
        return measure(*arguments[1:])
    megabytes = int(arguments[0]) if arguments else 100
    sample = Path(arguments[1]).read_bytes() if arguments[1:] else kjv(DataSettings("kjv"))
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (
            ("as it is", sample.decode()),
            ("other letters", sample.decode().translate(OTHER_LETTERS)),
        ):
            text = Path(folder, f"{name}.txt")
            make_text(text, content, megabytes)
            for tokenizer in sorted(TOKENIZERS.keys() - {"pretrained", "ids"}):
                for state in ("cold", "warm"):
                    command = [sys.executable, "-m", "tests.benchmarks.texts", MEASURE]
                    done = subprocess.run(
                        [*command, str(text), tokenizer, f"{folder}/cache"],
                        check=True,
                        capture_output=True,
                        text=True,
                    )
                    print(f"{name:14} {tokenizer:13} {state}  {done.stdout.strip()}", flush=True)
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
