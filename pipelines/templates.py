"""Write the metadata of the Dataflow Flex Templates: ``python -m pipelines.templates``.

It is made of the options of the pipelines themselves.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

PIPELINES = ("catalogue", "export", "ingest", "migrate", "verify")
BEAM_OPTIONS = {
    "sdk_container_image": "the image of the workers: the one that this template is built of",
    "sdk_location": "container, as the image has Beam installed",
}
"""What a job of ours needs of Beam's options and `gcloud` has no flags for: a template takes only what it declares."""
_FOLDER = Path(__file__).parent


def path_of(name: str) -> Path:
    """Return where the metadata of a pipeline's template is."""
    return _FOLDER / f"{name}_template_metadata.json"


def dump_template(name: str) -> str:
    """Return the metadata of a pipeline's template: each option is a parameter."""
    module = importlib.import_module(f"pipelines.{name}")
    parser: argparse.ArgumentParser = module.make_options()
    actions = [action for action in parser._actions if action.dest != "help"]  # noqa: SLF001 - there is no public list
    beams = [_described(name, explanation) for name, explanation in BEAM_OPTIONS.items()]
    document = {
        "name": f"Cloud-Optimized DICOM: {name}",
        "description": (module.__doc__ or "").partition(":")[0] + ".",
        "streaming": False,
        "parameters": [*(_parameter(parser, action) for action in actions), *beams],
    }
    return json.dumps(document, indent=2) + "\n"


def _parameter(parser: argparse.ArgumentParser, action: argparse.Action) -> dict[str, Any]:
    explanation = (action.help or "") % {**vars(action), "prog": parser.prog}
    if action.metavar:
        explanation += f" ({action.metavar})"
    if isinstance(action.default, list):  # a template hands a parameter over once
        explanation += "; one here"
    found = _described(action.dest, explanation) | {"isOptional": not action.required}
    if action.choices:
        found |= {"paramType": "ENUM", "enumOptions": [{"value": str(choice)} for choice in action.choices]}
    elif isinstance(action.default, bool):
        found["paramType"] = "BOOLEAN"
    elif action.type in {int, float}:
        found["paramType"] = "NUMBER"
    if isinstance(action.default, str | int | float) and not isinstance(action.default, bool):
        found["defaultValue"] = str(action.default)
    return found


def _described(name: str, explanation: str) -> dict[str, Any]:
    label = name.replace("_", " ")
    return {"name": name, "label": label, "helpText": explanation, "isOptional": True, "paramType": "TEXT"}


def main() -> None:
    """Write all of them."""
    for name in PIPELINES:
        path_of(name).write_text(dump_template(name), encoding="utf-8")


if __name__ == "__main__":
    main()
