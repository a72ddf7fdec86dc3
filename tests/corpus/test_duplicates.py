import numpy as np

from eeve_axolotl.corpus import duplicates as dup
from tests.corpus.conftest import Maker


def save_lines(path, texts):
    hashes, times = np.unique(
        np.concatenate([dup.line_hashes(text, 1) for text in texts]), return_counts=True
    )
    np.save(path.with_suffix(".hashes.npy"), hashes)
    np.save(path.with_suffix(".times.npy"), times)
    return path


def test_the_same_text_in_other_case_and_lines_is_an_exact_copy():
    assert dup.text_hash("Eine Zeile\nnoch eine") == dup.text_hash("eine zeile noch  eine")
    assert dup.text_hash("eine zeile") != dup.text_hash("eine zeile.")


def test_lines_are_counted_over_all_files_and_once_per_document(tmp_path):
    maker = Maker()
    lines = [maker.korean_sentence() for _ in range(40)]
    first = save_lines(tmp_path / "00000", [f"{lines[0]}\n{lines[0]}\n{lines[1]}", lines[2]])
    second = save_lines(tmp_path / "00001", [lines[0], lines[1], *lines[3:]])
    assert len(dup.frequent([first, second], 3)) == 0
    assert sorted(dup.frequent([first, second], 2)) == sorted(dup.line_hashes("\n".join(lines[:2]), 1))
    assert len(dup.frequent([first, second], 1)) == 40


def test_only_boilerplate_lines_are_cut():
    boilerplate = dup.line_hashes("이 사이트는 쿠키를 사용합니다", 1)
    text = "첫 줄\n  이 사이트는 쿠키를 사용합니다  \n둘째 줄"
    assert dup.without_lines(text, boilerplate, 5) == "첫 줄\n둘째 줄"
    assert dup.without_lines(text, boilerplate, 50) == text  # the line is too short to count


def test_a_shared_run_of_words_is_found_wherever_it_stands():
    words = [f"낱말{i}" for i in range(40)]
    secret = dup.all_passages([" ".join(words[10:23])])
    assert dup.contains(secret, dup.passages("앞 " + " ".join(words) + " 뒤")).sum() == 1
    assert not dup.contains(secret, dup.passages(" ".join(words[:22]))).any()  # twelve words of it
    assert not dup.contains(
        secret, dup.passages(" ".join(words[10:16]) + "\n" + " ".join(words[16:23]))
    ).any()


def test_a_shorter_line_counts_as_a_whole():
    secret = dup.all_passages(["하나 둘 셋 넷 다섯 여섯 일곱"])
    assert dup.contains(secret, dup.passages("머리말\n하나 둘 셋 넷 다섯 여섯 일곱\n끝")).any()
    assert not dup.contains(secret, dup.passages("하나 둘 셋 넷 다섯 여섯")).any()
    assert len(dup.passages("하나 둘 셋")) == 0


def test_lines_with_shared_passages_are_cut_and_no_others():
    maker = Maker(9)
    lines = [maker.korean_sentence(14) for _ in range(5)]
    secret = dup.passage_set(dup.all_passages([lines[1], lines[3]]))
    assert dup.without_passages("\n".join(lines), secret) == "\n".join([lines[0], lines[2], lines[4]])


def test_the_first_of_equal_documents_stays():
    hashes = np.array([5, 3, 5, 7, 3, 5], np.uint64)
    assert dup.later_copies(hashes).tolist() == [False, False, True, False, True, True]
