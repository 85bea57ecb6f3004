"""``podrt image``: the group; its verbs are in ``image_registry``, ``image_transfer`` (archives) and
``image_manage``."""

from __future__ import annotations

import click

from podrt.cli.lazy import Lazy, LazyGroup

_SECTIONS = {
    "Commands": {
        "pull": Lazy("podrt.cli.image_registry", "pull", "Pull images from their registries"),
        "push": Lazy("podrt.cli.image_registry", "push", "Push an image to a registry"),
        "load": Lazy("podrt.cli.image_transfer", "load", "Load images from an OCI or docker archive, or OCI directory"),
        "import": Lazy("podrt.cli.image_transfer", "import_", "Make an image of a root file system"),
        "save": Lazy("podrt.cli.image_transfer", "save", "Save images to an archive"),
        "ls": Lazy("podrt.cli.image_manage", "ls", "List images"),
        "inspect": Lazy("podrt.cli.image_manage", "inspect", "Show images in detail, as JSON"),
        "history": Lazy("podrt.cli.image_manage", "history", "Show how an image was made"),
        "tag": Lazy("podrt.cli.image_manage", "tag", "Give an image another name"),
        "rm": Lazy("podrt.cli.image_manage", "rm", "Remove names, and images that have none left"),
        "prune": Lazy("podrt.cli.image_manage", "prune", "Remove images that nothing uses"),
        "df": Lazy("podrt.cli.image_registry", "df", "Show what each image takes of the disk"),
        "usage": Lazy("podrt.cli.image_manage", "usage", "Show what the store takes of the disk"),
    }
}


@click.group("image", cls=LazyGroup, sections=_SECTIONS, subcommand_metavar="COMMAND ...")
def image() -> None:
    """Pull, load, list, tag, save, push and remove images."""
