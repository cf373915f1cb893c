"""Job queues with an environment of their own, see `benchmarks.peers`. Each program fills its queue or works on it.

They run in another Python or in Node, so they import nothing of the project.
"""
