"""python -m nas.data: what a data set holds, and what is odd about it, before anything is trained."""

import argparse
import sys
from pathlib import Path

from nas.cli.options import Parser, add_data_dir, add_pictures, pictures_asked, program, shape
from nas.cli.terminal import BAD_INPUT, DONE, run
from nas.errors import UserError, printable
from nas.space.pictures import Pictures

DESCRIPTION = """\
Say what a data set holds: its classes and parts, files that were passed over or cannot be read, copies of a picture,
classes that are small. Nothing is trained.

Images lie in a folder of class folders, which may lie in folders of splits, such as train, val and test; or a table
lists them: path,label and, if you like, split and group.
"""
EXAMPLES = """\
examples:
  python -m nas.data photos                             a folder of class folders
  python -m nas.data labels.csv --shape 1x28x28         files that a table lists, as grey images of 28 × 28 pixels
  python -m nas.data --space my_space.py                the data set of a space, as its networks see it
  python -m nas.data photos --picture photos.png        a few images of each class, as the networks see them

exit status: 0 done, 2 bad input, files that cannot be read included
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog=program("data"),
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("data", metavar="PATH", nargs="?", help="name or path of a data set")
    options.add_argument("--space", metavar="NAME", help="a space instead: its data set, shape and pictures")
    seen = options.add_argument_group("what a network sees")
    seen.add_argument(
        "--shape", metavar="CxHxW", type=shape, help="channels, height and width (default: its own, else 3x32x32)"
    )
    add_pictures(seen)
    options.add_argument(
        "--picture", metavar="FILE", type=Path, help="write some images of each class to this PNG file"
    )
    add_data_dir(options)
    return options


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    given = pictures_asked(args)
    if (args.data is None) == (args.space is None):
        raise UserError("give the name or path of a data set, or a space with --space")
    if args.space is not None and (given or args.shape):
        raise UserError("--space says the shape and how pictures are prepared; leave those options out")

    from nas.api.data import dataset_from, picture_of, sheet_of
    from nas.datasets.files import UnreadableError
    from nas.reporting.reading import reading_view
    from nas.space.loading import load_space

    data = args.data if args.space is None else load_space(args.space)
    dataset = dataset_from(data, args.shape, Pictures(**given), args.data_dir)
    try:
        with reading_view() as tell:
            sheet = sheet_of(dataset, tell)
    except UnreadableError as error:
        print(error.sheet)
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return BAD_INPUT
    print(sheet)
    if args.picture is not None:
        from nas.system.files import writable

        with writable(f"the picture {args.picture}", "give another --picture"):
            picture_of(dataset).save(args.picture, format="PNG")
        print(f"written: {args.picture}, rows from top to bottom: {', '.join(sheet.classes)}")
    return DONE


if __name__ == "__main__":
    run(main)
