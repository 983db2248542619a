"""Asks the simulated platform by the manufacturer's own SDK, and prints what its models read, as one JSON object.

usage: official_sdk.py HOST PORT APP_ID CONF_UUID CONFERENCE_ID START_MS END_MS USER...    the key of the App ID is in APP_KEY

The SDK asks for its token by https, whatever the address says, so there is TLS in front of the platform here.
"""

import datetime
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

import huaweicloudsdkmeeting.v1 as sdk
from huaweicloudsdkcore.exceptions import exceptions
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkmeeting.v1.meeting_credentials import AuthTypeEnum, MeetingCredentials, TenantSceneEnum


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def tls_before(host, port):
    with tempfile.TemporaryDirectory() as folder:
        key, cert = folder + "/key.pem", folder + "/cert.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2"]
            + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client):
        try:
            inside = context.wrap_socket(client, server_side=True)
            outside = socket.create_connection((host, port))
        except OSError:
            return
        threading.Thread(target=pump, args=(inside, outside), daemon=True).start()
        pump(outside, inside)

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return "https://127.0.0.1:%d" % listener.getsockname()[1]


def told(answer):
    """What the SDK's models made of an answer, by the names that the manual has."""
    if isinstance(answer, list):
        return [told(item) for item in answer]
    if not hasattr(answer, "openapi_types"):
        return answer
    members = {name: told(getattr(answer, name)) for name in answer.openapi_types}
    return {answer.attribute_map.get(name, name): value for name, value in members.items() if value is not None}


def main():
    host, port, app_id, run, number, start, end = sys.argv[1:8]
    users = sys.argv[8:]
    config = HttpConfig.get_default_config()
    config.ignore_ssl_verification = True
    credentials = (
        MeetingCredentials()
        .with_auth_type_enum(AuthTypeEnum.APP_ID)
        .with_app_id(app_id)
        .with_app_key(os.environ["APP_KEY"])
        .with_tenant_scene_enum(TenantSceneEnum.SINGLE_TENANT)
    )
    endpoint = tls_before(host, int(port))
    client = (
        sdk.MeetingClient.new_builder()
        .with_http_config(config)
        .with_credentials(credentials)
        .with_endpoint(endpoint)
        .build()
    )
    # A day of the platform is one of China.
    day = str((datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=8)).date())
    window = {"start_date": int(start), "end_date": int(end), "query_all": True}
    asked = {
        "history": lambda: client.search_his_meetings(sdk.SearchHisMeetingsRequest(limit=500, **window)),
        "past": lambda: client.show_his_meeting_detail(sdk.ShowHisMeetingDetailRequest(conf_uuid=run, limit=100)),
        "attendance": lambda: client.search_attendance_records_of_his_meeting(
            sdk.SearchAttendanceRecordsOfHisMeetingRequest(conf_uuid=run, limit=500, accept_language="en-US")
        ),
        "recordings": lambda: client.search_recordings(sdk.SearchRecordingsRequest(limit=500, **window)),
        "running": lambda: client.search_online_meetings(sdk.SearchOnlineMeetingsRequest(query_all=True)),
        "current": lambda: client.show_meeting_detail(sdk.ShowMeetingDetailRequest(conference_id=number)),
        "users": lambda: client.batch_show_user_details(
            sdk.BatchShowUserDetailsRequest(id_type="USER_ID", body=[sdk.ShowUserRequestDTO(id=user) for user in users])
        ),
        "today": lambda: client.show_org_res(sdk.ShowOrgResRequest()),
        "present": lambda: client.list_online_conf_attendee(sdk.ListOnlineConfAttendeeRequest(conf_id=number)),
        "participants": lambda: client.search_qos_participants(
            sdk.SearchQosParticipantsRequest(conf_uuid="live", conf_type="online")
        ),
        "statistics": lambda: client.search_statistic_conference_info(
            sdk.SearchStatisticConferenceInfoRequest(
                time_unit="D", start_time=day, end_time=day, category="conference_info"
            )
        ),
        "unknown": lambda: client.show_his_meeting_detail(sdk.ShowHisMeetingDetailRequest(conf_uuid="nobody knows it")),
        "log_out": lambda: client.delete_token(sdk.DeleteTokenRequest()),
    }
    answers = {}
    for name, ask in asked.items():
        try:
            answers[name] = told(ask())
        except exceptions.ServiceResponseException as error:
            answers[name] = {"status": error.status_code, "code": error.error_code}
    json.dump(answers, sys.stdout)


main()
