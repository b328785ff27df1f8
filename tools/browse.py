"""Opens a page in headless Chromium, runs JavaScript in it and prints what that returns as JSON.

For the tests of the control page. It speaks the DevTools protocol over a pair of pipes, so it needs nothing but the
standard library. Usage: browse.py URL [--screenshot FILE] < SCRIPT, where SCRIPT is the body of an async function.
"""

import argparse
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time


class Browser:
    """A Chromium of its own, with a profile that is gone afterwards."""

    def __init__(self, seconds):
        self.deadline = time.monotonic() + seconds
        self.number = 0
        self.rest = b""
        self.profile = tempfile.mkdtemp(prefix="stalk-browse-")
        reading, self.output = os.pipe()
        self.input, writing = os.pipe()
        binary = shutil.which("chromium") or sys.exit("browse: there is no chromium: apt install chromium")
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--remote-debugging-pipe", "--window-size=1280,860", f"--user-data-dir={self.profile}", "about:blank"]
        # The browser reads commands from descriptor 3 and answers on 4.
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{reading} 4>&{writing}', "browse", binary, *flags],
            pass_fds=(reading, writing), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(reading)
        os.close(writing)

    def call(self, method, session=None, **parameters):
        """Sends a command and waits for its answer; what happens meanwhile is of no interest."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        os.write(self.output, json.dumps(command).encode() + b"\0")
        while True:
            answer = json.loads(self.receive())
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"browse: {method}: {answer['error']['message']}")
                return answer["result"]

    def receive(self):
        """The next message."""
        while b"\0" not in self.rest:
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([self.input], [], [], left)[0]:
                sys.exit("browse: the browser took too long")
            some = os.read(self.input, 1 << 16)
            if not some:
                sys.exit("browse: the browser ended")
            self.rest += some
        message, self.rest = self.rest.split(b"\0", 1)
        return message

    def close(self):
        """Ends the browser and removes its profile."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


def main():
    """Runs the script from standard input in the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("url")
    parser.add_argument("--screenshot", metavar="FILE")
    parser.add_argument("--seconds", type=float, default=120)
    arguments = parser.parse_args()
    script = f"(async () => {{ {sys.stdin.read()} }})()"
    browser = Browser(arguments.seconds)
    try:
        target = browser.call("Target.createTarget", url=arguments.url)["targetId"]
        session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        # A new target begins with an empty page, which is complete as well.
        is_there = "location.href !== 'about:blank' && document.readyState === 'complete'"
        while not browser.call("Runtime.evaluate", session, expression=is_there,
                               returnByValue=True)["result"].get("value"):
            time.sleep(0.05)
        outcome = browser.call("Runtime.evaluate", session, expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in outcome:
            details = outcome["exceptionDetails"]
            sys.exit(f"browse: {details.get('exception', {}).get('description', details['text'])}")
        if arguments.screenshot:
            picture = browser.call("Page.captureScreenshot", session, format="png")
            with open(arguments.screenshot, "wb") as file:
                file.write(base64.b64decode(picture["data"]))
        print(json.dumps(outcome["result"].get("value")))
    finally:
        browser.close()


if __name__ == "__main__":
    main()
