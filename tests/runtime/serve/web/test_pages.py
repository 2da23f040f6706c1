"""The pages load nothing from elsewhere, and name everything there is."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import pytest

from tests.runtime.serve.client import Address


class Addresses(HTMLParser):
    """Every address that a page loads or leads to."""

    ATTRIBUTES: ClassVar = {"src", "href", "action", "srcset", "data", "poster"}

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in self.ATTRIBUTES]
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_names_no_other_host_and_the_browser_would_not_ask_it(server: Address, path: str) -> None:
    reply = server.ask("GET", path)
    assert reply.status == 200
    text = reply.body.decode()
    parser = Addresses()
    parser.feed(text)
    assert all(found.startswith("/") or found == "data:," for found in parser.found), parser.found
    assert re.findall(r"https?://[^\s\"']+", text) in ([], ["http://www.w3.org/2000/svg"])
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("sha256-") == len(re.findall("<(script|style)>", text))


def test_the_page_asks_for_addresses_that_exist(server: Address) -> None:
    text = server.ask("GET", "/").body.decode()
    paths = set(server.ask("GET", "/openapi.json").json["paths"])
    asked = set(re.findall(r'fetch\("(/[a-z]*)', text))
    assert asked == {"/models", "/predict"}
    assert asked <= paths


def test_the_list_of_addresses_names_every_one(server: Address) -> None:
    text = server.ask("GET", "/docs").body.decode()
    openapi = server.ask("GET", "/openapi.json").json
    assert openapi["openapi"].startswith("3.")
    for path in openapi["paths"]:
        assert path in text
    assert "/v2/models/{name}/versions/{version}/infer" in openapi["paths"]


def test_the_page_shows_text_from_outside_as_text(server: Address) -> None:
    text = server.ask("GET", "/").body.decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_facts_for_people(server: Address, integer_bundle: Path) -> None:
    (facts,) = server.ask("GET", "/models").json
    assert facts["name"] == "tiny"
    assert facts["products"] == "integer (3/3 products on integer kernels)"
    assert facts["proved"] is True
    assert facts["bits"] == ["W4A8"]
    assert facts["file_bytes"] == (integer_bundle / "model.onnx").stat().st_size
