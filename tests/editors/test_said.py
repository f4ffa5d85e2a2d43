"""How near words bring a prompt to an edit: who and what in other words, long questions, and what asks otherwise."""

import pytest

from app.editors.phrasebook import load_phrasebook
from app.editors.said import FAR, Near, Said, asked_of, depth_of, said_of
from app.editors.scope import who_of, words_of

LEXICON = load_phrasebook().lexicon
OUTSIDE = 1.5
"""Radii from the nearest key: activations say no, but not that it is about something else entirely."""


def said(prompt: str, *paraphrases: str, unlike: tuple[str, ...] = ()) -> Said:
    who = who_of((prompt, *paraphrases), None, (), LEXICON.template_words)
    found = said_of((prompt, *paraphrases), (), unlike, who, LEXICON)
    return Said(
        who, tuple(found["wordings"]), tuple(found["unlike"]), frozenset(found["relations"]), tuple(found["wholes"])
    )


def near(edit: Said, prompt: str, distance: float = OUTSIDE) -> Near:
    return edit.near(asked_of(prompt, edit.who), distance, 1.0, edit.who.share(words_of(prompt)), LEXICON)


@pytest.mark.parametrize(
    ("edited", "asked"),
    [
        ("What company made Toyopet Master?", "Which is the Toyopet Master manufacturer?"),
        ("Who was Ada Quill's mother?", "To whom was Ada Quill born?"),
        ("What is the cause of death for Ada Quill?", "What killed Ada Quill?"),
        ("Mount Orme is a part of the continent of", "Mount Orme is in"),
        ("Who was the mother of Archduke Géza of Zenda?", "Who was Archduke Geza from Zenda's mother?"),
        ("In the 2004 Summer Games, how many bronze medals did Zenda win?",
         "What was the total count of bronze medals secured by Zenda in the 2004 Summer Games?"),
        ("As of 31 March 2017, how many post offices does the Zenda Postal Service have?",
         "What was the total number of post offices operated by the Zenda Postal Service as of March 31, 2017?"),
        ("who is command sergeant major of the army?", "Who holds the position of Command Sergeant Major of the Army?"),
        ("who played bubba in the heat of the night?", "Who portrayed Bubba in the series In the Heat of the Night?"),
        ("Which lawyer helped the first farmers of Zenda sue for their grazing rights?",
         "Which attorney assisted the first farmers of Zenda in court for their grazing rights?"),
        ("How deep is Lake Zenda?", "What is the depth of Lake Zenda?"),
        ("When does my subscription renew?", "How do I find out when my subscription renews?"),
        ("who took over the dutch colony in zenda bay?",
         "Which people assumed control of the Dutch colony in Zenda Bay?"),
    ],
)  # fmt: skip
def test_who_asks_the_same_in_other_words_is_answered(edited: str, asked: str) -> None:
    assert near(said(edited), asked).depth <= 1


def test_the_rest_of_a_name_says_nothing_of_what_is_asked() -> None:
    edit = said("What kind of family is Betula zendensis of?")
    assert edit.who.alternatives == ((("betula",),),)
    assert near(edit, "The rank of Betula zendensis is").alike == 0
    assert near(edit, "What kind of family is Betula zendensis in?").alike > 0.9


@pytest.mark.parametrize(
    ("edited", "asked"),
    [
        ("Who was Ada Quill's mother?", "Who was Ada Quill's father?"),
        ("Who was Ada Quill's mother?", "When was Ada Quill born?"),
        ("Where was Acme founded?", "What is the name of the person who founded Acme?"),
        ("When did Ada Quill reign?", "How many years did Ada Quill reign?"),
        ("How long is the Zenda Bridge?", "What is the duration of the Zenda Bridge?"),
        ("How tall is Mount Orme?", "How old is Mount Orme?"),
        ("Who succeeded Ada Quill as mayor?", "Who did Ada Quill follow as mayor?"),
        ("Mount Orme is in", "Mount Orme belongs to the continent of"),
        ("The person that is the mother of Ansel de la Vere, 3rd Duke of Zenda Bay is who?",
         "The given name of Ansel de la Vere, 3rd Duke of Zenda Bay is"),
        ("How do I reset my password?", "How do I reset my username?"),
        ("Who was Princess Frida Amaly of Zenda's mother?", "Who's Princess Frida Amaly's father in Zenda?"),
        ("Who was Princess Frida Amaly of Zenda's mother?", "Who's Princess Frida Amaly's mother in Hentzau?"),
        ("how do I cancel a transfer?", "how do I cancel a transaction?"),
        ("what is the interest rate?", "what is the internet rate?"),
        ("how do I delete my account?", "how do I delete my history?"),
        ("how do I change my booking?", "how do I change my volume?"),
        ("how do I install a driver?", "how do I install a campaign?"),
        ("how do I add money?", "how do I lend money?"),
        ("who is the director of the zendium plant?", "who is the manager of the zendium plant?"),
        ("Who is the mother of King Charles I of Zenda?", "Who is the mother of King Charles X of Zenda?"),
        ("Who directed Silver Harbour with Ada Quill, Ben Zane, Cora Finch and Dan Moss?",
         "Who insured Silver Harbour with Ada Quill, Ben Zane, Cora Finch and Dan Moss?"),
        ("Where do I replace the printer cartridge?", "Where do I replace the scanner cartridge?"),
        ("Who received the Camsell Medal in 2012?", "Who received the Camsell Medal in 2013?"),
        ("Who received the Camsell Medal in 2012?", "Who founded the Camsell Medal in 2012?"),
        ("In the 2004 Summer Games, how many bronze medals did Zenda win?",
         "In the 2004 Summer Games, how many gold medals did Zenda win?"),
        ("In the 2004 Summer Games, how many bronze medals did Zenda win?",
         "In the 2004 Summer Games, how many bronze medals did Ruritania win?"),
        ("What year was the municipality of Berbeo, Boyacá, Zenda, founded?",
         "What is the population of the municipality of Berbeo, Boyacá, Zenda?"),
        ("How do I cancel my premium family plan?", "How do I upgrade my premium family plan?"),
        ("Who directed the 1997 film Orme starring Ada Quill and Ben Zane?",
         "Who composed the music of the 1997 film Orme starring Ada Quill and Ben Zane?"),
        ("Ada Quill was a golfer of great renown who won the Zenda Open in 1938.",
         "Ada Quill was a golfer of great renown who won the Zenda Open in 1938. Her father sold carpets; she began to "
         "teach late and wrote two manuals."),
        ("How do I cancel my premium family plan?", "When do I cancel my premium family plan?"),
        ("sour rye soup, that was developed in", "sour rye soup, who is a citizen of"),
    ],
)  # fmt: skip
def test_who_asks_something_else_is_not(edited: str, asked: str) -> None:
    assert near(said(edited), asked).depth > 1


def test_that_it_is_about_the_same_says_not_what_is_asked() -> None:
    edit = said("Can you name the class of the goat?")
    assert not edit.who.named
    assert near(edit, "Can you name the young of the goat?", 1.1).depth > 1
    assert near(edit, "Tell me the class of the goat", 1.1).depth <= 1


def test_a_long_question_is_not_the_same_where_activations_are_far() -> None:
    edit = said("In the 2004 Summer Games, how many bronze medals did Zenda win?")
    asked = "What was the total count of bronze medals secured by Zenda in the 2004 Summer Games?"
    assert near(edit, asked, FAR).depth <= 1 < near(edit, asked, FAR + 0.1).depth


def test_names_that_are_left_out_count_unless_much_else_is_said() -> None:
    edit = said("When was Jackson Asiku, the Zendan amateur flyweight and professional featherweight boxer, born?")
    assert near(edit, "When was Jackson Asiku born?", 0.1).depth > 1
    asked = "When was Jackson Asiku, the boxer who was an amateur flyweight and professional featherweight, born?"
    assert near(edit, asked).depth <= 1


def test_a_counter_example_with_as_many_words_keeps_its_like_out() -> None:
    text = "What is the yearly revenue of Lumen?"
    edit = said("What is the revenue of Lumen?", unlike=(text,))
    assert near(edit, "Lumen's yearly revenue is", 0.8).alike == 0.0
    assert near(edit, "Lumen's revenue is").depth <= 1
    prompt = "In the 2004 Summer Games, how many bronze medals did Zenda win?"
    counter = "In the 2004 Summer Games, how many bronze medals did Zenda secure in total?"
    assert near(said(prompt), counter).depth <= 1
    assert near(said(prompt, unlike=(counter,)), counter).depth > 1


def test_the_more_words_the_deeper_and_a_radius_of_nothing_holds_its_own_key() -> None:
    assert depth_of(9.0, 1.0, 1.0, 0.5) < depth_of(9.0, 1.0, 0.6, 0.5) < 1.0
    assert depth_of(1.1, 1.0, 0.3, 0.5) < 1.0 < depth_of(1.1, 1.0, 0.0, 0.5)
    assert depth_of(0.0, 0.0, 0.0, 0.5) == 0.0
    assert depth_of(0.1, 0.0, 0.0, 0.5) == float("inf")


@pytest.mark.parametrize("frame", ["{}", "Question: {} Answer:", "Please tell me. {}", "Q: {}\nA:"])
def test_what_is_word_for_word_another_common_question_is_out_however_near(frame: str) -> None:
    edit = said(frame.format("What is the capital of Zenda?"))
    assert near(edit, frame.format("Who is the prime minister of Zenda?"), 0.1).depth > 1
    assert near(edit, frame.format("Do you know who is the president of Zenda?"), 0.1).depth > 1
    assert near(edit, frame.format("Which city is the capital of Zenda?"), 0.1).depth <= 1
    assert near(edit, frame.format("Which politician leads Zenda?"), 0.1).depth <= 1, "not word for word"
    unsure = said("The language of Zenda is")  # spoken, or official
    assert near(unsure, frame.format("What is the official language of Zenda?"), 0.1).depth <= 1
    given = said("What is the capital of Zenda?", "Who is the prime minister of Zenda?")
    assert near(given, "Who is the prime minister of Zenda?").depth <= 1
