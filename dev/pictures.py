"""Take the screenshots of README and docs: run the demo, then open the admin. `python -m dev.pictures`."""

from __future__ import annotations

import sys

import django
from playwright.sync_api import Page, ViewportSize, sync_playwright

from dev.browser import launch
from dev.demo.environment import demo_environment
from dev.environment import ROOT
from dev.waiting import wait_until

WINDOW: ViewportSize = {"width": 1500, "height": 850}
PHONE: ViewportSize = {"width": 390, "height": 844}
PICTURES = ROOT / "docs" / "pictures"


def main() -> int:
    """Write docs/pictures/*.png. Returns 0."""
    PICTURES.mkdir(exist_ok=True)
    with demo_environment() as environment:
        django.setup()
        from dev.demo.scenario import Scenario  # after setup: it imports the models

        environment.start_processes()
        scenario = Scenario(environment)
        scenario.prepare()
        scenario.play()
        wait_until(scenario.ended, "the scenario has ended")
        record = scenario.replayed.record  # before the browser starts: its event loop blocks database access
        with sync_playwright() as playwright, launch(playwright) as browser:
            address = f"http://127.0.0.1:{environment.port}/admin/"
            page = browser.new_page(viewport=WINDOW)
            log_in(page, address, scenario.operator, scenario.password)
            page.goto(f"{address}notifications/")
            page.screenshot(path=PICTURES / "overview.png", full_page=True)
            page.goto(f"{address}notifications/notificationrecord/")
            page.screenshot(path=PICTURES / "list.png")
            page.goto(f"{address}notifications/notificationrecord/{record and record.pk}/change/")
            page.screenshot(path=PICTURES / "record.png", full_page=True)
            chinese = browser.new_page(viewport=WINDOW, locale="zh-CN", color_scheme="dark")
            log_in(chinese, address, scenario.operator, scenario.password)
            chinese.goto(f"{address}notifications/notificationrecord/")
            chinese.screenshot(path=PICTURES / "list-zh-dark.png")
            chinese.goto(f"{address}notifications/")
            chinese.screenshot(path=PICTURES / "overview-zh-dark.png", full_page=True)
            phone = browser.new_page(viewport=PHONE)
            log_in(phone, address, scenario.operator, scenario.password)
            phone.goto(f"{address}notifications/")
            phone.screenshot(path=PICTURES / "overview-phone.png", full_page=True)
    return 0


def log_in(page: Page, address: str, name: str, password: str) -> None:
    """Log in to the admin."""
    page.goto(address)
    page.fill("#id_username", name)
    page.fill("#id_password", password)
    page.click("input[type=submit]")


if __name__ == "__main__":
    sys.exit(main())
