"""docs/deploy.md: its files are what their readers accept, and say the same as the Dockerfiles."""

import configparser
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.docs.blocks import blocks

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "deploy.md"
FILES = {block.file: block.text for block in blocks(DOCUMENT) if block.file}


def container() -> Any:
    service = YAML(typ="safe").load(FILES["inference-service.yaml"])
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    (only,) = service["spec"]["predictor"]["containers"]
    return only


def test_kserve_is_told_one_port_by_all_who_name_it() -> None:
    found = container()
    port = int(found["args"][found["args"].index("--port") + 1])
    assert [listed["containerPort"] for listed in found["ports"]] == [port]
    assert {found[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")} == {port}


def test_the_container_serves_what_the_storage_initializer_mounts() -> None:
    assert container()["args"][:2] == ["serve", "/mnt/models"]


def test_the_unit_of_systemd_restarts_and_gives_up_rights() -> None:
    unit = configparser.ConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # keys keep their case, as documented
    unit.read_string(FILES["saq-qat.service"])
    assert set(unit.sections()) == {"Unit", "Service", "Install"}
    service = unit["Service"]
    assert re.match(r"\S+/saq-qat-runtime serve /srv/pets ", service["ExecStart"])
    assert (service["DynamicUser"], service["NoNewPrivileges"]) == ("yes", "yes")


def test_the_dockerfiles_it_names_exist() -> None:
    named = re.findall(r"`(runtime/docker/\S+)`", DOCUMENT.read_text(encoding="utf-8"))
    assert len(named) == 2
    assert all((ROOT / name).is_file() for name in named)
