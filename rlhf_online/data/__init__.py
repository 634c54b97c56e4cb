"""People's data in and out: files of preferences become ordinary events of the log, and the log's votes become files.

file ──`files`──▶ rows ──`formats`──▶ Row ──`importing`──▶ events ──▶ log
log  ──`votes`──▶ exchanges with their votes ──`exporting`──▶ file
"""
