"""The words of ``npu-run``: its options, what they may be, and what its help says of them."""

import argparse
import sys
from pathlib import Path

from runtime.delegates.choice import delegates, resolve
from runtime.errors import UserError
from runtime.npu.faults import KINDS, Fault, parse_fault
from runtime.opening import add_options

TOKEN = "NPU_RUN_TOKEN"
"""Environment variable with the token that the live page's visitors need; not an option, which others could list."""

COMMANDS = """\
other commands:
  npu-run info BUNDLE [--json]      what is in a bundle, and who signed it
  npu-run selftest BUNDLE [--json]  replay its golden vectors, partition by partition
  npu-run profile BUNDLE [--json]   what each layer is estimated to cost on the target; --trace F for Perfetto
"""

DELEGATE_HELP = """npu: the simulated NPU, bit for bit; plain: its slow reference kernels; cpu: ONNX Runtime (other
bits); ort:PROVIDER[,OPTION=VALUE]: a processor that ONNX Runtime knows, as ort:OpenVINO,device_type=CPU; auto: the
first of those that is here, else npu"""

INJECT_HELP = f"""a fault of the simulated NPU for a drill, FAULT@FRAME or FAULT@FRAME+FRAMES, several times; faults
are {", ".join(KINDS)}; load stands for the frame before the first, in which programs are put on the device"""


def run_parser() -> argparse.ArgumentParser:
    """Of ``npu-run BUNDLE --source ...``."""
    parser = argparse.ArgumentParser(
        "npu-run",
        description="Play a bundle on a video, images or a camera.",
        epilog=COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    _add_inputs(parser)
    _add_outputs(parser)
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        required=True,
        action="append",
        help="video, folder of images, image, .npy file, camera (0), or stream (rtsp://...); several times",
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="stop after N frames of each source")
    add_delegate(parser)
    add_options(parser)
    add_faults(parser)
    parser.add_argument(
        "--watch", action="store_true", help="take over a new bundle when its file changes, or comes by POST /bundle"
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--events", type=Path, metavar="F", help="write one JSON line per frame")
    parser.add_argument("--annotate", type=Path, metavar="F", help="write an mp4 with boxes, tracks and counts")
    parser.add_argument(
        "--sink",
        action="append",
        default=[],
        metavar="S",
        help="deliver crossings and visits to a .jsonl, .csv, .sqlite file or mqtt://HOST:PORT/PREFIX; several times",
    )
    parser.add_argument(
        "--serve",
        metavar="HOST:PORT",
        help=f"serve the live page, /metrics and /healthz; any host but this one needs a token in {TOKEN}",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def bundle_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Of ``npu-run COMMAND BUNDLE``."""
    parser = argparse.ArgumentParser(f"npu-run {command}", description=description)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser)
    return parser


def add_delegate(parser: argparse.ArgumentParser) -> None:
    """``--delegate`` and ``--strict``."""
    parser.add_argument("--delegate", type=_delegate, default="npu", metavar="D", help=DELEGATE_HELP)
    parser.add_argument("--strict", action="store_true", help="refuse when an operator would fall back to the CPU")


def add_faults(parser: argparse.ArgumentParser) -> None:
    """``--inject``."""
    parser.add_argument("--inject", type=_fault, action="append", default=[], metavar="F", help=INJECT_HELP)


def _delegate(text: str) -> str:
    """A delegate's name, checked, and what ``auto`` means here; a word that is none is wrong usage."""
    try:
        delegates(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return resolve(text)


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return min(value, sys.maxsize)
