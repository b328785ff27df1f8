"""A third party's NSQ client, pynsq, as a program: it keeps the tests' own nsqd honest.

    pynsq_client.py publish ADDRESS TOPIC COUNT [OPTION ...]
    pynsq_client.py consume ADDRESS TOPIC COUNT [OPTION ...]

`publish` sends the numbers below COUNT, alone, together and delayed, and prints how many nsqd took. `consume` takes until
COUNT different bodies are finished and prints them as JSON, each with the attempts that it took; it gives every seventh
back once, and touches every fifth.
"""

import argparse
import asyncio
import json
import logging
import sys

import nsq

CHANNEL = "stalk"


def options():
    """Reads the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["publish", "consume"])
    parser.add_argument("address")
    parser.add_argument("topic")
    parser.add_argument("count", type=int)
    parser.add_argument("--deflate", action="store_true")
    parser.add_argument("--certificates", help="directory of ca.pem, client.pem and client.key")
    parser.add_argument("--auth")
    return parser.parse_args()


def connection(arguments):
    """What pynsq is to negotiate."""
    wishes = {"heartbeat_interval": 1}
    if arguments.deflate:
        wishes.update(deflate=True, deflate_level=6)
    if arguments.certificates:
        place = arguments.certificates
        files = {"ca_certs": f"{place}/ca.pem", "certfile": f"{place}/client.pem", "keyfile": f"{place}/client.key"}
        wishes.update(tls_v1=True, tls_options=files)
    if arguments.auth:
        wishes.update(auth_secret=arguments.auth)
    return wishes


async def publish(arguments):
    """Publishes by all three commands and waits for each answer."""
    writer = nsq.Writer([arguments.address], **connection(arguments))
    loop = asyncio.get_running_loop()
    # A connection is in `conns` once its handshake is over; pynsq tells of it in no other way.
    while not writer.conns:
        await asyncio.sleep(0.02)
    answers = []

    def send(method, *values):
        answer = loop.create_future()
        method(arguments.topic, *values, callback=lambda conn, data: answer.set_result(data))
        answers.append(answer)

    bodies = [str(number).encode() for number in range(arguments.count)]
    third = arguments.count // 3
    for body in bodies[:third]:
        send(writer.pub, body)
    send(writer.mpub, bodies[third:-2])
    for body in bodies[-2:]:
        send(writer.dpub, 50, body)
    results = await asyncio.wait_for(asyncio.gather(*answers), 30)
    failed = [result for result in results if result != b"OK"]
    if failed:
        sys.exit(f"nsqd refused: {failed}")
    print(arguments.count)


async def consume(arguments):
    """Takes until everything is finished."""
    finished = {}
    over = asyncio.get_running_loop().create_future()

    def handle(message):
        number = int(message.body)
        if number % 5 == 0:
            message.touch()
        if number % 7 == 0 and message.attempts == 1:
            message.enable_async()
            message.requeue(delay=0, backoff=False)
            return None
        finished[number] = message.attempts
        if len(finished) == arguments.count and not over.done():
            over.set_result(None)
        return True

    nsq.Reader(
        topic=arguments.topic,
        channel=CHANNEL,
        message_handler=handle,
        nsqd_tcp_addresses=[arguments.address],
        max_in_flight=25,
        **connection(arguments),
    )
    await asyncio.wait_for(over, 30)
    # The last FIN is on its way.
    await asyncio.sleep(0.2)
    print(json.dumps({str(number): attempts for number, attempts in sorted(finished.items())}))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    given = options()
    asyncio.run(publish(given) if given.action == "publish" else consume(given))
