"""A candidate and the live version side by side before people: what they say, how sure it is, and what follows.

betting     whether people prefer the candidate: a test that may be looked at whenever one likes
people      what counts in it: each person once, however much they say
strengths   how strong versions are, with intervals: for people to look at, never to decide by
"""
