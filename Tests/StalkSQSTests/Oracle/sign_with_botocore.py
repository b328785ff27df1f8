"""Signs requests with botocore, so that a test can compare: JSON list in, list of Authorization headers out."""

import datetime
import json
import sys
from unittest import mock

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


def sign(case):
    """Returns the Authorization header that botocore makes for one request."""
    url = f"https://sqs.{case['region']}.amazonaws.com:8443{case['path']}"
    request = AWSRequest("POST", url, headers=case["headers"], data=case["body"].encode())
    credentials = Credentials(case["accessKeyID"], case["secretAccessKey"], case.get("sessionToken"))
    moment = datetime.datetime.fromtimestamp(case["seconds"], datetime.timezone.utc).replace(tzinfo=None)
    with mock.patch("botocore.auth.get_current_datetime", return_value=moment):
        botocore.auth.SigV4Auth(credentials, "sqs", case["region"]).add_auth(request)
    return request.headers["Authorization"]


print(json.dumps([sign(case) for case in json.load(sys.stdin)]))
