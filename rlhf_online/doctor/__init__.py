"""What stands in the way of this installation, and what to do about it: one small function a subject.

    settings   the files of the services: read, and of one mind
    packages   what is installed, against what this release asks for
    disks      the state folder: writable, fast, durable, with room, on a disk that outlives the container
    ports      free, or held by the service that they are for
    gpu        where a setting asks for one
    kafka      the brokers, the credentials, the topics, the records in them
    store      the versions: whether of several writers one wins, in a folder or a bucket
    secrets    kept as they must be, and in nothing that is said
    clock      this machine's, against what Kafka or the bucket says
    lease      who keeps a trainer waiting

A check leaves things as it found them, and may run beside the services: what it writes to try a disk or a folder it
removes. No secret is in what it says. `services.doctor` chooses the checks by the settings and prints what they find.
"""
