"use strict";
/* The blind vote without its page: which pairs are asked, in which order and on which side, and the file that is left.
   An order follows from a seed, so that a vote goes on after the page was closed. */
(function (d4k) {
  const ballot = (d4k.ballot = {});
  const data = d4k.model.data;

  ballot.key = data ? `d4k-votes ${data.title} ${data.created}` : "";

  /** Pairs of pictures of one row, `a` before `b` among the sets, mixed by a seed; `limit` 0 asks all of them. */
  ballot.pairs = function (rows, sets, seed, limit) {
    const random = d4k.random(seed);
    const all = [];
    rows.forEach(function (row, index) {
      for (let one = 0; one < sets.length; one++) {
        for (let other = one + 1; other < sets.length; other++) {
          const [a, b] = [Math.min(sets[one], sets[other]), Math.max(sets[one], sets[other])];
          if (row.pictures[a] && row.pictures[b]) all.push({ row: index, a, b });
        }
      }
    });
    for (let last = all.length - 1; last > 0; last--) {
      const other = Math.floor(random() * (last + 1));
      [all[last], all[other]] = [all[other], all[last]];
    }
    return (limit > 0 ? all.slice(0, limit) : all).map((pair) => ({ ...pair, left: random() < 0.5 ? "a" : "b" }));
  };

  ballot.start = (sets, seed, limit, voter) => ({
    sets: sets.map((index) => data.sets[index].id),
    seed,
    limit,
    voter,
    created: new Date().toISOString(),
    votes: [],
  });

  /** What a side means: "left", "right" or "tie" as "a", "b" or "tie". */
  ballot.choice = function (pair, side) {
    if (side === "tie") return "tie";
    return side === "left" ? pair.left : pair.left === "a" ? "b" : "a";
  };

  ballot.keep = (session) => d4k.store.set(ballot.key, session);

  /** A vote that was begun, if its sets are still there. */
  ballot.kept = function () {
    const session = d4k.store.get(ballot.key);
    const whole = session && Array.isArray(session.sets) && Array.isArray(session.votes) && Number.isInteger(session.seed);
    if (!whole || !session.sets.every((id) => d4k.model.setIndex(id) >= 0)) return null;
    return session;
  };

  /** The file, as `d4k compare` and `d4k report` read it. */
  ballot.file = function (session, pairs) {
    return {
      format: 1,
      kind: "d4k-votes",
      report: data.title,
      created: session.created,
      voter: session.voter,
      votes: session.votes.map(function (vote, index) {
        const pair = pairs[index];
        const row = data.rows[pair.row];
        return {
          row: row.id,
          prompt: row.prompt === null ? "" : row.prompt,
          a: data.sets[pair.a].name,
          b: data.sets[pair.b].name,
          choice: vote.choice,
          left: pair.left,
          seconds: vote.seconds,
        };
      }),
    };
  };

  /** For each pair of sets, how often which was chosen. */
  ballot.tally = function (session, pairs) {
    const found = new Map();
    session.votes.forEach(function (vote, index) {
      const { a, b } = pairs[index];
      const key = `${a} ${b}`;
      if (!found.has(key)) found.set(key, { a, b, wins: { a: 0, b: 0, tie: 0 } });
      found.get(key).wins[vote.choice] += 1;
    });
    return [...found.values()];
  };
})(window.d4k);
