"""Runs a server that speaks the SQS protocol, with a key that may do everything, until its standard input ends.

Usage: real_server.py moto|ministack PORT PROGRAM. Prints one JSON line with the key once the server answers.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import boto3


def start(kind, port, program, home):
    """Starts the server; ministack checks signatures, ages and keys as AWS does."""
    if kind == "moto":
        command, settings = [program, "-H", "127.0.0.1", "-p", port], {}
    else:
        command = [program]
        settings = {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": port,
            "MINISTACK_HOST": "127.0.0.1",
            "SERVICES": "sqs,iam,sts",
            "AUTH": "true",
        }
    return subprocess.Popen(
        command,
        env={**os.environ, **settings, "HOME": home},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def create_key(port):
    """Makes a user who may do everything, and a key for it."""
    client = boto3.client(
        "iam",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_user(UserName="stalk")
    allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    client.put_user_policy(UserName="stalk", PolicyName="all", PolicyDocument=policy)
    return client.create_access_key(UserName="stalk")["AccessKey"]


def serve(kind, port, program):
    """Runs the server until nobody holds the other end of standard input."""
    with tempfile.TemporaryDirectory() as home:
        server = start(kind, port, program, home)
        try:
            for attempt in range(100):
                try:
                    key = create_key(port)
                    break
                except Exception:
                    if attempt == 99 or server.poll() is not None:
                        raise
                    time.sleep(0.1)
            print(json.dumps({"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}), flush=True)
            sys.stdin.read()
        finally:
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()


serve(*sys.argv[1:4])
