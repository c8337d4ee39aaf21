"""The files that a Flex Template is built from: they say what the pipelines and the installed Beam say."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.templates import BEAM_OPTIONS, PIPELINES, dump_template, path_of

FOLDER = Path(__file__).resolve().parents[2] / "pipelines"


def test_every_pipeline_has_a_template() -> None:
    """A program with options of its own is one that a template can be made of."""
    programs = {path.stem for path in FOLDER.glob("*.py") if "make_options" in path.read_text(encoding="utf-8")}
    assert programs - {"templates"} == set(PIPELINES)
    assert {path.name for path in FOLDER.glob("*.json")} == {path_of(name).name for name in PIPELINES}


@pytest.mark.parametrize("name", PIPELINES)
def test_templates_have_the_options_of_their_pipelines(name: str) -> None:
    """The metadata is what `python -m pipelines.templates` writes, parameter by parameter."""
    assert path_of(name).read_text(encoding="utf-8") == dump_template(name), "run python -m pipelines.templates"


@pytest.mark.parametrize("name", PIPELINES)
def test_a_launcher_can_hand_over_every_parameter(name: str) -> None:
    """Launchers write `--name=value` for each parameter, switches too; the pipeline understands all of them."""
    values = {"TEXT": "uri=a", "NUMBER": "7", "BOOLEAN": "true"}
    parameters = json.loads(dump_template(name))["parameters"]
    given = {
        each["name"]: each["enumOptions"][-1]["value"] if "enumOptions" in each else values[each["paramType"]]
        for each in parameters
        if each["name"] != "bigquery_table"  # excludes the other
    }
    parser = importlib.import_module(f"pipelines.{name}").make_options()
    known, flags = parser.parse_known_args([f"--{key}={value}" for key, value in given.items()])
    assert flags == [f"--{key}=uri=a" for key in BEAM_OPTIONS]  # handed on to Beam, which knows them
    assert set(BEAM_OPTIONS) <= set(PipelineOptions([]).get_all_options())
    switches = [each["name"] for each in parameters if each["paramType"] == "BOOLEAN"]
    assert all(getattr(known, switch) is True for switch in switches)
    off = [f"--{switch}=false" for switch in switches]
    required = [f"--{each['name']}=a" for each in parameters if not each["isOptional"]]
    known, _ = parser.parse_known_args([*required, *off])
    assert all(getattr(known, switch) is False for switch in switches)
    for switch in switches:
        with pytest.raises(SystemExit):
            parser.parse_known_args([*required, f"--{switch}=perhaps"])


def test_the_page_explains_every_flag_of_an_ingest() -> None:
    """No option is left out of the how-to."""
    page = (FOLDER.parent / "docs" / "how-to" / "beam.md").read_text(encoding="utf-8")
    names = [each["name"] for each in json.loads(dump_template("ingest"))["parameters"]]
    assert "store" in names
    assert [name for name in names if f"`--{name}" not in page] == []


def test_the_image_has_the_beam_that_is_tested() -> None:
    """The container's Beam is the installed one, and whatever is copied into it exists."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^ARG BEAM=(.+)$", text, re.MULTILINE) == [beam.__version__]
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY") and "--from" not in line]
    assert [name for names in copied for name in names if not (FOLDER.parent / name).exists()] == []
    assert set(re.findall(r"PIPELINE=(\w+)", text)) <= set(PIPELINES)
