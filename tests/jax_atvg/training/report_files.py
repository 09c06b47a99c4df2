"""Reads what reporters write, from the bytes, for tests."""

import json
import struct


def events(workdir):
    """All that TensorBoard would read, file after file.

    A record: u64 length, u32 checksum, the event, u32 checksum.
    """
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted((workdir / "events").iterdir()):  # named by the second
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def offline_runs(workdir):
    """The records of each offline run, in the order of their starts.

    A file: 7 bytes, then blocks of 32 kB that hold pieces of records: u32 checksum, u16
    length, u8 kind (1 whole, 2 first, 3 middle, 4 last), the piece.
    """
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # its process writes on for a moment
    for path in sorted((workdir / "wandb").glob("offline-run-*/run-*.wandb")):
        data, at, record, records = path.read_bytes(), 7, b"", []
        while at < len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
            record += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):
                records.append(Record.FromString(record))
                record = b""
        yield records


def logged(records):
    """[{"step": 1, "vg/loss": 0.5}, ...]: without what wandb adds."""

    def name(item):
        return item.key or "/".join(item.nested_key)

    items = [record.history.item for record in records if record.HasField("history")]
    return [
        {name(one): json.loads(one.value_json) for one in each if name(one)[0] != "_"}
        for each in items
    ]


def exit_codes(*runs):
    return [
        record.exit.exit_code
        for records in runs
        for record in records
        if record.HasField("exit")
    ]
