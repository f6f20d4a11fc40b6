"""Figures of topics: a posterior, intervals, a guard, a release; each is programs and a module that asks them."""

from fanfold.report.figure.topics.kept import TOPICS, TopicParts, kept_topic

__all__ = ["TOPICS", "TopicParts", "kept_topic"]
