"""The watch on what goes wrong where a model learns from people: monitors that tell, and decide nothing of a version.

    drift       do people judge otherwise than they did?

Pure, and known to no service: `training.watching` feeds them, and tells metrics, the console and the log.
"""
