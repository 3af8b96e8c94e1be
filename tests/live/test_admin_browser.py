"""Web pages at the Admin API, in a real browser: a foreign one gets nothing done and nothing to read, the console all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest

from tests.live.browser import Browser, chromium
from tests.live.support import GatewayProcess, LiveTestCase, free_port, request, wait_until

TOKEN = "0123456789abcdef0123456789abcdef"

ATTEMPTS = """(async () => {
    const at = %(at)r, form = 'name=evil&host=h', json = JSON.stringify({name: 'evil', host: 'h'});
    const outcome = async (path, options) => {
        try {
            const answer = await fetch(at + path, options);
            return answer.type === 'opaque' ? 'opaque' : `read ${answer.status} ${(await answer.text()).slice(0, 200)}`;
        } catch (error) { return 'refused'; }
    };
    const typed = (type) => ({'Content-Type': type});
    const found = {
        read: await outcome('/services', {}),
        root: await outcome('/', {credentials: 'include'}),
        blind: await outcome('/services', {mode: 'no-cors'}),
        form: await outcome('/services', {method: 'POST', body: form, mode: 'no-cors',
                                          headers: typed('application/x-www-form-urlencoded')}),
        text: await outcome('/services', {method: 'POST', body: json, mode: 'no-cors', headers: typed('text/plain')}),
        json: await outcome('/services', {method: 'POST', body: json, headers: typed('application/json')}),
        put: await outcome('/services/evil', {method: 'PUT', body: json, headers: typed('application/json')}),
        delete: await outcome('/services/mine', {method: 'DELETE'}),
        disguised: await outcome('/services', {headers: {'User-Agent': 'curl/8.14.1'}}),
        multipart: await outcome('/services', {method: 'POST', body: (() => { const data = new FormData();
                                               data.append('name', 'evil'); data.append('host', 'h'); return data; })()}),
    };
    navigator.sendBeacon(at + '/services', new URLSearchParams(form));
    const script = await new Promise((resolve) => {
        const element = document.createElement('script');
        element.src = at + '/services';
        element.onload = () => resolve('loaded');
        element.onerror = () => resolve('refused');
        document.head.append(element);
    });
    const frame = Object.assign(document.createElement('iframe'), {name: 'frame'});
    document.body.append(frame);
    const element = Object.assign(document.createElement('form'),
                                  {method: 'POST', action: at + '/services', target: 'frame'});
    for (const [name, value] of new URLSearchParams(form)) {
        element.append(Object.assign(document.createElement('input'), {name, value}));
    }
    document.body.append(element);
    const framed = new Promise((resolve) => { frame.onload = resolve; });
    element.submit();
    await framed;
    return {...found, script};
})()"""

CONSOLE = """(async () => {
    const at = %(at)r, headers = {'Content-Type': 'application/json', 'Kong-Admin-Token': %(token)r};
    const ask = async (method, path, body) => {
        const answer = await fetch(at + path, {method, headers, credentials: 'include', body: body && JSON.stringify(body)});
        return [answer.status, answer.status === 204 ? null : await answer.json()];
    };
    const created = await ask('POST', '/services', {name: 'by-console', host: 'h'});
    const changed = await ask('PATCH', '/services/by-console', {port: 81});
    const listed = await ask('GET', '/services');
    const gone = await ask('DELETE', '/services/by-console');
    const bad = await ask('POST', '/services', {});
    const stranger = await fetch(at + '/services');
    return [created[0], changed[1].port, listed[1].data.map((row) => row.name), gone[0], bad[1].code, stranger.status];
})()"""


class PagesTests(LiveTestCase):
    """Headless Chromium with pages of several origins."""

    def setUp(self) -> None:
        if chromium() is None:
            raise SkipTest("needs Chromium")

    def site(self) -> int:
        """Serve an empty page on all names of this machine; returns the port."""
        folder, port = self.folder(), free_port()
        Path(folder, "index.html").write_text("<!doctype html><title>page</title><body></body>", encoding="utf-8")
        words = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", folder]
        self.wait_for_port(port, self.start(words, "site"))
        return port

    def page(self, url: str, *flags: str) -> Browser:
        """Open a page."""
        browser = Browser(flags=flags)
        self.addCleanup(browser.close)
        browser.open(url)
        browser.wait("document.readyState === 'complete'")
        return browser

    def services(self, gateway: GatewayProcess, **headers: str) -> list[str]:
        return [row["name"] for row in gateway.admin("GET", "/services", headers=headers).json["data"]]

    def attack(self, gateway: GatewayProcess, page: str, at: str, *flags: str) -> None:
        """All that a page at ``page`` can try must come to nothing."""
        found: dict[str, Any] = self.page(page, *flags).run(ATTEMPTS % {"at": at})
        for name in ("read", "root", "json", "put", "delete", "disguised", "multipart"):
            self.assertEqual(found[name], "refused", (page, name))
        for name in ("blind", "form", "text"):
            self.assertIn(found[name], ("opaque", "refused"), (page, name))
        self.assertEqual(found["script"], "refused")
        self.assertEqual(self.services(gateway), ["mine"])

    def test_foreign_pages(self) -> None:
        """Of another site, of another port of this machine: no request of theirs does or reads anything."""
        port, gateway = self.site(), self.gateway()
        gateway.create("/services", name="mine", host="h")
        for page in (f"http://localhost:{port}/", f"http://127.0.0.1:{port}/"):
            for host in ("127.0.0.1", "localhost"):
                self.attack(gateway, page, f"http://{host}:{gateway.admin_port}")

        def refusals() -> list[str]:
            lines = gateway.log("admin_access.log").splitlines()
            return [line for line in lines if '"POST /services' in line and '" 403 ' in line]

        wait_until(lambda: len(refusals()) >= 4 * 4, "the log of forms, beacons and texts")  # they did arrive

    def test_foreign_pages_on_a_public_listener(self) -> None:
        """The same where the Admin API listens on all addresses."""
        port, gateway = self.site(), GatewayProcess(self, {})
        gateway.conf["admin_listen"] = f"0.0.0.0:{gateway.admin_port}"
        self._gateways.append(gateway)
        gateway.start().create("/services", name="mine", host="h")
        self.attack(gateway, f"http://localhost:{port}/", f"http://127.0.0.1:{gateway.admin_port}")

    def test_rebound_name(self) -> None:
        """A page whose name was bound to our address is not foreign to the browser; the name gives it away."""
        port = self.site()
        rules = "--host-resolver-rules=MAP attacker.example 127.0.0.1"
        for listen in ("127.0.0.1", "0.0.0.0"):
            gateway = GatewayProcess(self, {})
            gateway.conf["admin_listen"] = f"{listen}:{gateway.admin_port}"
            self._gateways.append(gateway)
            gateway.start().create("/services", name="mine", host="h")
            address = f"http://attacker.example:{gateway.admin_port}"
            browser = self.page(f"{address}/services", rules)  # its origin now is that of the Admin API
            script = "fetch('/services', %s).then(async (answer) => [answer.status, await answer.text()])"
            for options in ("{}", "{method: 'POST', body: new URLSearchParams('name=evil&host=h')}"):
                status, text = browser.run(script % options)
                self.assertEqual(status, 403)
                self.assertNotIn("mine", text)
                self.assertIn("attacker.example", text)
            self.attack(gateway, f"http://attacker.example:{port}/", address, rules)

    def test_console(self) -> None:
        """The page at admin_gui_url reads and writes, with a token in a header of its own; a foreign page still does not."""
        port, other = self.site(), self.site()
        gateway = self.gateway({"admin_gui_url": f"http://localhost:{port}/manager", "admin_api_token": TOKEN})
        at = f"http://127.0.0.1:{gateway.admin_port}"
        browser = self.page(f"http://localhost:{port}/")
        found = browser.run(CONSOLE % {"at": at, "token": TOKEN})
        self.assertEqual(found, [201, 81, ["by-console"], 204, 2, 401])
        foreign = self.page(f"http://localhost:{other}/")
        for options in ("{}", f"{{headers: {{'Kong-Admin-Token': {TOKEN!r}}}}}"):
            script = f"fetch({at!r} + '/services', {options}).then(() => 'read', () => 'refused')"
            self.assertEqual(foreign.run(script), "refused")

    def test_opened_by_hand(self) -> None:
        """Somebody who types the address, or follows a link from elsewhere, sees the answer."""
        port, gateway = self.site(), self.gateway()
        browser = self.page(f"http://localhost:{port}/")
        address = f"http://localhost:{gateway.admin_port}/services"
        browser.run(f"void (location.href = {address!r})")
        browser.wait(f"location.href === {address!r} && document.body?.innerText.includes('\"data\"')")
        self.assertEqual(browser.run("fetch('/services').then((answer) => answer.status)"), 200)
        self.assertEqual(request(gateway.admin_port, "GET", "/services").status, 200)
