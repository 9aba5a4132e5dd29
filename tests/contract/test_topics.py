"""A topic that is built parses back, nothing else parses, and no name can leave its place in a topic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract import topics
from agent.contract.messages import KINDS
from agent.contract.topics import Topic, TopicError

names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
kinds = st.sampled_from(topics.AGENT_UP + topics.AGENT_DOWN)


@given(name=names, kind=kinds)
def test_an_agent_topic_parses_back(name: str, kind: str) -> None:
    assert topics.parse(topics.agent(name, kind)) == Topic(f"agents/{kind}", (name,))


@given(digest=digests, chunk=st.integers(0, 999_999_999))
def test_a_chunk_topic_parses_back(digest: str, chunk: int) -> None:
    assert topics.parse(topics.blob(digest, chunk)) == Topic("blobs", (digest, str(chunk)))


@given(model=names, other=names)
def test_user_topics_parse_back(model: str, other: str) -> None:
    assert topics.parse(topics.model_infer(model)) == Topic("models/infer", (model,))
    assert topics.parse(topics.client_answer(other)) == Topic("clients/answer", (other,))
    assert topics.parse(topics.predictions(model, other)) == Topic("predictions", (model, other))


def test_the_controller_topic_parses_back() -> None:
    assert topics.parse(topics.CONTROLLER_STATUS) == Topic("controller/status", ())


@given(model=names, other=names, digest=digests)
def test_no_topic_has_more_than_six_slashes(model: str, other: str, digest: str) -> None:
    built = [topics.agent(model, "reported"), topics.blob(digest, 7), topics.predictions(model, other)]
    assert max(topic.count("/") for topic in built) <= 6


@given(text=st.text(max_size=90))
def test_any_text_is_either_a_topic_of_the_contract_or_ignored(text: str) -> None:
    for candidate in (
        text,
        f"{topics.ROOT}/{text}",
        f"{topics.ROOT}/agents/{text}/hello",
        f"{topics.ROOT}/blobs/{text}/0",
    ):
        found = topics.parse(candidate)
        if found is not None and found.kind == "agents/hello":
            assert candidate == topics.agent(found.names[0], "hello")


@given(text=st.text(max_size=70))
def test_a_name_is_one_level_of_a_topic_or_refused(text: str) -> None:
    try:
        topics.check_name(text)
    except TopicError:
        return
    assert topics.agent(text, "hello").count("/") == 4
    assert not set(text) & set("/+#$\x00 \n")


@pytest.mark.parametrize("bad", ["", "a/b", "+", "#", "A", "-a", "a" * 64, "a\n", "ä", "$sys", "..", "a b"])
def test_names_that_could_leave_their_place_are_refused(bad: str) -> None:
    with pytest.raises(TopicError):
        topics.check_name(bad)


def test_a_refused_name_says_what_is_allowed_and_what_it_names() -> None:
    with pytest.raises(TopicError, match=r"model 'My Model' is not usable: use 1 to 63 of a-z"):
        topics.check_name("My Model", "model")


@pytest.mark.parametrize("build", [topics.model_infer, topics.client_answer, lambda name: topics.agent(name, "hello")])
def test_builders_refuse_wildcards_but_take_a_plus_to_subscribe(build: object) -> None:
    assert callable(build)
    assert "/+/" in build("+")
    with pytest.raises(TopicError):
        build("#")


def test_an_unknown_agent_topic_is_refused() -> None:
    with pytest.raises(TopicError, match="no agent topic is called 'gossip'"):
        topics.agent("a", "gossip")


def test_every_agent_topic_has_a_message() -> None:
    assert {f"agents/{kind}" for kind in topics.AGENT_UP + topics.AGENT_DOWN} <= set(KINDS)
