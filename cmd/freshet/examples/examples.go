// Package examples holds the examples that come with Freshet: for each a model
// spec, embedded, and the code that prepares the events it learns from. It does
// not train, and it opens no file but those of a data folder it is given.
//
// There are two. Kuairand is a real click stream, joined from the tables of a
// published data set. Shop is simulated, and so has what a real stream cannot
// have: the true probability of every click, and with it the best log loss that
// any model could reach on these very events. A learner is judged by the share of
// the way it gets from "always the average" to there.
//
// # The shop's clicks
//
// An event is one product shown to one user at one position of a page. It is
// clicked with probability
//
//	p = 1 / (1 + exp(-η)),   η = -2.35
//	  + warmth[user]                                        (standard deviation 0.3)
//	  + liking[age group, category]                         (0.3)
//	  + 1.6 if the category is in fashion with the user's style at present
//	  + 0.7 if the category is a favourite of the user at present
//	  + quality[product](t)                                 (0.55 that stays and 0.3 that walks)
//	  + habit[device, hour]                                 (0.25)
//	  - slope[surface] · ln(position)                       (search 0.7, home 0.45, mail 0.25)
//	  - 0.6 · max(0, x) - 0.1 · max(0, -x),   x = log2(price / budget[user])
//	  + 0.012 · discount
//	  + 0.5 · max(0, 1 - days listed / 7)
//	  + on a search page: 0.4 if the product is of the category searched for, else -1;
//	    and 0.7 if it has the tag searched for
//
// Four categories at a time are in fashion with each of 24 styles, each for 7 to 28
// days; a user has two favourites, each for 10 to 40 days; a product's quality walks
// between values that it takes every 5 days; a product is listed for 30 to 89 days
// and then makes place for another with a new identifier; from Friday to Sunday a
// quarter of the categories, in turn, is on sale. A budget is 2^5, 2^0.6 times as
// much per tier, times 2 to a normal power (0.4). The rest is fixed by the seed.
// Users, categories and the products of a category are drawn by Zipf's law; nearly
// half of what a user sees is of categories that suit. 50,000 events make a day, with its
// busy and quiet hours.
//
// A logistic regression can express most of this by features and crosses (style ×
// category, user × category, query × category, query × tag, surface × position,
// tier × price), but has to learn each user's and each product's part from few
// examples that grow old, and budgets from clicks alone. The embedded spec gets
// 0.72 of the way from the average to the best in a million events taken in order,
// and 0.68 with 512 events in flight.
//
// # The stream of the benchmarks
//
// Criteo is no example to learn from by up, but a stream of known difficulty that
// benchmarks share with other systems; see its type.
//
// # Invariants
//
//  1. The same settings give the same bytes. Of the shop's, whatever the machine: the
//     simulation computes in integers (thousandths of η, millionths of p), from tables that
//     are rounded once.
//  2. More events of the same settings begin with the same bytes.
//  3. Column p is read by no feature of an embedded spec.
//  4. Preparing a data set drops, adds and de-duplicates no event.
package examples

import (
	"embed"
	"fmt"
	"strings"

	"github.com/freshet-ml/freshet/ps"
)

// Names of the examples.
const (
	ShopName     = "shop"
	KuairandName = "kuairand"
)

//go:embed shop.yaml kuairand.yaml
var specs embed.FS

// catalogue lists the examples in the order in which they are shown.
var catalogue = []struct{ name, description string }{
	{ShopName, "simulated shop whose best possible log loss is known; any number of events, generated"},
	{KuairandName, "228,329 real impressions of a video app (KuaiRand-Pure, CC BY-SA 4.0), from a data folder"},
}

// Names returns the names of the examples in the order to show them. The caller
// owns the slice.
func Names() []string {
	names := make([]string, len(catalogue))
	for i, e := range catalogue {
		names[i] = e.name
	}
	return names
}

// Describe returns one line about an example, without a full stop. An unknown
// name is ps.ErrInvalid.
func Describe(name string) (string, error) {
	for _, e := range catalogue {
		if e.name == name {
			return e.description, nil
		}
	}
	return "", unknown(name)
}

// Spec returns the model spec of an example as YAML, to be read by spec.Parse. Its
// stream has no source: whoever prepares the events knows where they are. The
// caller owns the bytes. An unknown name is ps.ErrInvalid.
func Spec(name string) ([]byte, error) {
	if _, err := Describe(name); err != nil {
		return nil, err
	}
	doc, err := specs.ReadFile(name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("read the embedded spec of example %s: %w", name, err)
	}
	return doc, nil
}

func unknown(name string) error {
	return fmt.Errorf("no example is called %q: choose %s: %w", name, strings.Join(Names(), " or "), ps.ErrInvalid)
}
