# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A real browser in the crowd's namespace: headless Chromium, driven through chromedriver by plain HTTP (W3C WebDriver)."""
import base64
import http.client
import json
import shutil

from netns import wait_until

DRIVER_PORT = 9515
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that the WebDriver standard gives to a reference
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=400,800"]


def missing():
    """What has to be installed first, or None."""
    absent = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return f"{' and '.join(absent)} not installed (Debian: chromium, chromium-driver)" if absent else None


class Browser:
    def __init__(self, world, name):
        self.world = world
        self.driver = world.crowd.start(["chromedriver", f"--port={DRIVER_PORT}"], world.dir / f"{name}-driver.log")
        self.session = None
        try:
            wait_until(self._is_up, "chromedriver answers", timeout=30)
            arguments = [*ARGUMENTS, f"--user-data-dir={world.dir / name}"]
            options = {"binary": shutil.which("chromium"), "args": arguments}
            logging = {"browser": "ALL"}
            capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logging}}
            self.session = self._ask("POST", "/session", {"capabilities": capabilities})["sessionId"]
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            if self.session:
                self._ask("DELETE", f"/session/{self.session}")
        finally:
            self.driver.stop()

    def _connection(self):
        connection = http.client.HTTPConnection("127.0.0.1", DRIVER_PORT, timeout=60)
        connection.sock = self.world.crowd.socket()
        connection.sock.settimeout(60)
        connection.sock.connect(("127.0.0.1", DRIVER_PORT))
        return connection

    def _is_up(self):
        try:
            return self._ask("GET", "/status")["ready"]
        except OSError:
            return False

    def _ask(self, method, path, body=None):
        connection = self._connection()
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise AssertionError(f"WebDriver: {value['error']}: {value['message']}")
        return value

    def _in_session(self, method, path, body=None):
        return self._ask(method, f"/session/{self.session}{path}", body)

    def open(self, url):
        self._in_session("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        return self._in_session("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self):
        """What a reader sees of the page."""
        return self.run("return document.body.innerText")

    def click(self, selector):
        found = self._in_session("POST", "/element", {"using": "css selector", "value": selector})
        self._in_session("POST", f"/element/{found[ELEMENT]}/click", {})

    def complaints(self):
        """What the browser has to say against the page: errors of scripts, blocked or missing files."""
        return [entry["message"] for entry in self._in_session("POST", "/se/log", {"type": "browser"})
                if entry["level"] == "SEVERE"]

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self._in_session("GET", "/screenshot")))
