"""docs/providers.md, "Adding one", followed literally in a project that has only the wheel."""

from __future__ import annotations

from pathlib import Path

from tests.support.host_project import Host
from tests.support.provider_guide import read_guide


def test_the_guides_provider_passes_its_checks_and_the_conformance_tests(site_packages: Path, tmp_path: Path) -> None:
    guide = read_guide()
    settings = "_keys = NOTIFICATIONS\n" + guide.settings + "\nNOTIFICATIONS |= _keys\n"
    with Host.started(tmp_path, site_packages, settings=settings) as host:
        (tmp_path / "ourproject").mkdir()
        (tmp_path / "ourproject" / "__init__.py").touch()
        (tmp_path / "ourproject" / "pager.py").write_text(guide.provider)
        (tmp_path / "conftest.py").write_text(guide.conftest)
        (tmp_path / "test_pager.py").write_text(guide.test)

        assert "no issues" in host.manage("check", "--fail-level", "WARNING")
        printed = host.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--ds=mysite.settings", "test_pager.py")

    assert "passed" in printed
    assert "failed" not in printed
