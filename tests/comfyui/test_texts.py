"""What the pack says about itself: help pages, names, translations and the example workflows fit the nodes."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from comfyui.installation import PACK

from locales import translations
from locales.generate import generate

HELP = PACK / "web" / "docs"
LOCALES = PACK / "locales"
NAMES = LOCALES / "en" / "nodeDefs.json"
JOBS = {"transfer", "look", "speed", "sinks", "files", "demo"}
EXAMPLES = sorted((PACK / "example_workflows").glob("*.json"))
LOADERS = ("UNETLoader", "CLIPLoader", "VAELoader", "EncoderLoader", "LoraLoaderModelOnly", "CheckpointLoaderSimple")
FOLDERS = ("diffusion_models", "text_encoders", "vae", "loras", "checkpoints", "clip_vision")

#: Made by the page, not by the server.
VIRTUAL = {"MarkdownNote", "Note", "Reroute", "PrimitiveNode"}

Schemas = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def registered(server) -> Schemas:
    return server.get("/object_info")


@pytest.fixture(scope="module")
def ours(registered: Schemas) -> Schemas:
    found = {name: schema for name, schema in registered.items() if name.startswith("VDiT_")}
    assert len(found) >= 8
    return found


def inputs(schema: dict[str, Any]) -> dict[str, list]:
    """All inputs of a schema by name: [type, options]."""
    return schema["input"].get("required", {}) | schema["input"].get("optional", {})


def widgets(schema: dict[str, Any]) -> list[str]:
    """The fields of the node, in its order; the page adds one behind a seed."""
    fields = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
    names = []
    for name, (kind, *options) in inputs(schema).items():
        if isinstance(kind, list) or kind in fields:
            names.append(name)
        if options and options[0].get("control_after_generate"):
            names.append("control_after_generate")
    return names


@cache
def example(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def every_node(file: Path) -> list[dict[str, Any]]:
    """The nodes of an example, and those of its subgraphs."""
    workflow = example(file)
    subgraphs = workflow.get("definitions", {}).get("subgraphs", [])
    own = {graph["id"] for graph in subgraphs}
    return [node for graph in (workflow, *subgraphs) for node in graph["nodes"] if node["type"] not in own]


def test_every_node_and_every_socket_is_described(ours):
    bare = [name for name, schema in ours.items() if not schema["description"]]
    bare += [f"{name}.{i}" for name, schema in ours.items() for i, (_, o) in inputs(schema).items() if not o["tooltip"]]
    for name, schema in ours.items():
        bare += [f"{name}: output {i}" for i, tooltip in enumerate(schema["output_tooltips"]) if not tooltip]
    assert bare == []


def test_every_node_is_listed_by_its_job(ours):
    listed = {name: schema["category"].split("/") for name, schema in ours.items()}
    assert {root for root, *_ in listed.values()} == {"VDiT Attention"}
    assert all(len(parts) == 2 for parts in listed.values())
    assert {job for _, job in listed.values()} == JOBS
    assert {name for name in ours if re.match("VDiT_(Save|Load)", name)} == {
        name for name, (_, job) in listed.items() if job == "files"
    }


def test_search_words_are_lower_case_and_said_once(ours):
    for name, schema in ours.items():
        words = schema["search_aliases"]
        assert words, name
        assert sorted(words) == sorted({word.lower() for word in words}), name
        assert schema["display_name"].lower() not in words, name


def test_the_english_texts_are_generated_from_the_nodes(registered):
    """The page shows these texts in the place of the nodes' own, so they must not fall behind."""
    for file, text in generate(registered).items():
        assert (LOCALES / "en" / file).read_text(encoding="utf-8") == text, "run `make locales`"


@pytest.mark.parametrize("language", ["en", *translations.languages()])
def test_the_server_gives_the_page_all_texts_of_a_language(server, language):
    told = server.get("/i18n")[language]
    for file in translations.FILES:
        content = json.loads((LOCALES / language / file).read_text(encoding="utf-8"))
        for name, texts in ({"nodeDefs": content} if file == "nodeDefs.json" else content).items():
            assert texts.items() <= told[name].items()


@pytest.mark.parametrize("language", translations.languages())
def test_choices_are_named_as_they_are_chosen(ours, language):
    """A menu shows its choices in English in every language, so a tooltip that explains one must name it so."""
    texts = translations.texts(LOCALES / language)
    explained = 0
    for node, schema in ours.items():
        for name, (kind, options) in inputs(schema).items():
            choices = kind if isinstance(kind, list) else options.get("options", [])
            for choice in choices:
                if re.search(rf"\b{re.escape(choice)}\b", options["tooltip"]):
                    explained += 1
                    assert choice in texts[f"nodeDefs/{node}/inputs/{name}/tooltip"], (node, name, choice)
    assert explained > 30


def test_tooltips_are_sentences(ours):
    """They begin with a capital letter and end with a full stop, and do not begin in the middle of a thought."""
    texts = {name: [schema["description"], *schema["output_tooltips"]] for name, schema in ours.items()}
    for name, schema in ours.items():
        texts[name] += [options["tooltip"] for _, options in inputs(schema).values()]
    odd = [(name, text) for name in texts for text in texts[name] if not re.fullmatch(r"[A-Z].*[.]", text)]
    odd += [(name, text) for name in texts for text in texts[name] if re.match(r"(Of|For|From|As|In|With) ", text)]
    assert odd == []


def test_every_node_has_a_help_page(ours):
    assert sorted(page.stem for page in HELP.glob("*.md")) == sorted(ours)


def test_a_help_page_names_every_input_and_output(ours):
    named = json.loads(NAMES.read_text(encoding="utf-8"))
    for name, schema in ours.items():
        page = (HELP / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {schema['display_name']}\n"), name
        rows = re.findall(r"^\| (.+?) \|", page, re.MULTILINE)
        listed = {word.strip() for row in rows for word in row.split(",")}
        texts = named[name]
        wanted = {text["name"] for text in (*texts.get("inputs", {}).values(), *texts["outputs"].values())}
        # "target prompt, 2, 3, 4" is one row for four inputs.
        missing = {word for word in wanted - listed if not re.fullmatch(r"target prompt \d", word)}
        assert missing == set(), f"{name}: the page has no row for {sorted(missing)}"


def test_pictures_in_help_pages_exist_and_are_used():
    used = set()
    for page in HELP.glob("*.md"):
        pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
        assert pictures, f"{page.name} has no picture"
        used |= {HELP / picture for picture in pictures}
    assert {picture for picture in used if not picture.is_file()} == set()
    assert {picture for picture in (HELP / "images").iterdir() if picture not in used} == set()


def test_there_are_examples():
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_fits_the_nodes(registered, file):
    nodes = every_node(file)
    unknown = {node["type"] for node in nodes} - set(registered) - VIRTUAL
    assert unknown == set()
    for node in nodes:
        if not node["type"].startswith("VDiT_"):
            continue
        # Values are saved by position: an input that was moved or added shifts them.
        names = widgets(registered[node["type"]])
        assert list(node.get("widgets_values_named", {})) == names, node["type"]
        assert len(node.get("widgets_values", [])) == len(names), node["type"]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_has_a_picture_and_says_what_it_is(file):
    assert file.with_suffix(".jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    assert any(node["type"] == "MarkdownNote" for node in example(file)["nodes"])


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_names_where_its_models_are(file):
    for node in every_node(file):
        files = [value for value in node.get("widgets_values") or () if str(value).endswith(".safetensors")]
        if not node["type"].endswith(LOADERS):
            continue
        models = {model["name"]: model for model in node["properties"]["models"]}
        assert sorted(models) == sorted(set(files))
        for name, model in models.items():
            assert re.match(r"https://huggingface\.co/(Comfy-Org|Lightricks)/", model["url"])
            assert name in model["url"]
            assert model["directory"] in FOLDERS
