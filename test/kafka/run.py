#!/usr/bin/env python3
"""Learns real clicks through a real broker of Kafka, which is killed on the way, and compares with the file.

Kafka's own jars are brought by Maven into bin/kafka if they are not there; one broker runs on the loopback
(KRaft, no ZooKeeper). FRESHET_DATA, or --data, names the folder with kuairand.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
JARS = ROOT / "bin" / "kafka"
PARTITIONS = 8


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Broker:
    """One broker that keeps its log in a folder, so that it can be killed and started again."""

    def __init__(self, home):
        self.port, controller = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = open(home / "broker.log", "ab")
        self.settings = home / "server.properties"
        self.settings.write_text(
            "process.roles=broker,controller\nnode.id=1\n"
            f"controller.quorum.voters=1@127.0.0.1:{controller}\n"
            f"listeners=PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}\n"
            f"advertised.listeners=PLAINTEXT://{self.address}\n"
            "controller.listener.names=CONTROLLER\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
            f"log.dirs={home}/log\nauto.create.topics.enable=false\n"
            "offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n"
        )
        self.java("kafka.tools.StorageTool", "random-uuid")
        uuid = subprocess.run(self.command("kafka.tools.StorageTool", "random-uuid"), capture_output=True, text=True, check=True).stdout.strip()
        self.java("kafka.tools.StorageTool", "format", "-t", uuid, "-c", self.settings)
        self.process = None

    @staticmethod
    def command(*args):
        return ["java", "-Xmx512m", "-cp", f"{JARS}/*", *args]

    def java(self, *args):
        subprocess.run(self.command(*args), check=True, stdout=self.log, stderr=self.log)

    def start(self):
        self.process = subprocess.Popen(self.command("kafka.Kafka", self.settings), stdout=self.log, stderr=self.log)
        late = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            if self.process.poll() is not None or time.monotonic() > late:
                sys.exit(f"the broker does not start; its log is {self.log.name}")
            time.sleep(0.1)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        self.process.terminate()
        self.process.wait(60)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--freshet", required=True, type=pathlib.Path, help="the program")
    parser.add_argument("--data", default=os.environ.get("FRESHET_DATA"), help="folder with kuairand (default: FRESHET_DATA)")
    parser.add_argument("--rate", default=20_000, type=int, help="events a second that are learned from the topic (default 20,000)")
    settings = parser.parse_args()
    if not settings.data:
        sys.exit("say where the data are: --data, or FRESHET_DATA")
    program, data = settings.freshet.resolve(), pathlib.Path(settings.data).resolve() / "kuairand"
    if not any(JARS.glob("kafka-tools-*.jar")):
        print("bringing Kafka's jars ...", flush=True)
        subprocess.run(["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={JARS}"], cwd=ROOT / "test" / "kafka", check=True)

    def freshet(*args):
        done = subprocess.run([program, *args, "-o", "json"], stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as ends:
        home = pathlib.Path(home)
        file = freshet("up", "--example", "kuairand", "--data", data, "--until-end", "--listen", "127.0.0.1:0", "--dir", home / "file")
        print(f"from the file:  {file['events']:,} events, AUC {file['progressive']['auc']:.4f}, audit {file['audit']['lost']}/{file['audit']['doubled']}", flush=True)

        broker = Broker(home)
        broker.start()
        ends.callback(broker.end)
        broker.java("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", broker.address, "--create", "--topic", "kuairand", "--partitions", str(PARTITIONS))
        topic = f"kafka://{broker.address}/kuairand"
        sent = freshet("stream", "send", home / "file" / "kuairand.csv", "--to", topic, "--key", "user_id")
        print(f"sent:           {sent['rows']:,} rows in {sent['seconds']:.1f} s", flush=True)

        spec = (ROOT / "cmd" / "freshet" / "examples" / "kuairand.yaml").read_text()
        spec = re.sub(r"format: csv", "format: json", spec, count=1)
        spec = re.sub(r"(?m)^  (partitions|partition_by|sort|passes): .*\n", "", spec)
        (home / "kuairand.yaml").write_text(spec)
        learning = subprocess.Popen(
            [program, "up", home / "kuairand.yaml", "--stream", topic, "--until-end", "--rate", str(settings.rate), "--listen", "127.0.0.1:0", "-o", "json"],
            stdout=subprocess.PIPE,
        )
        time.sleep(sent["rows"] / settings.rate / 2)
        broker.kill()
        print("the broker was killed half-way ...", flush=True)
        time.sleep(2)
        began = time.monotonic()
        broker.start()
        print(f"... and answers again {time.monotonic() - began:.1f} s after it was started", flush=True)
        out, _ = learning.communicate()
        if learning.returncode != 0:
            sys.exit(f"learning ended with {learning.returncode}")
        learned = json.loads(out)
        audit, auc = learned["audit"], learned["progressive"]["auc"]
        print(f"from the topic: {learned['events']:,} events, AUC {auc:.4f}, audit {audit['lost']}/{audit['doubled']}", flush=True)
        wrong = []
        if learned["events"] != file["events"] or sent["rows"] != file["events"] or audit["lost"] or audit["doubled"]:
            wrong.append("not every event was learned once")
        if abs(auc - file["progressive"]["auc"]) > 0.003:
            wrong.append("the AUC is another")
        sys.exit("; ".join(wrong) or 0)


if __name__ == "__main__":
    main()
