package examples

import "math"

const (
	nBrands      = 80
	qualityEvery = 5 * day // between the values that a quality walks to
)

var categoryNames = [...]string{
	"shoes", "shirts", "phones", "books", "toys", "coats", "lamps", "games", "bags", "mugs", "watches", "chairs",
	"headphones", "plants", "knives", "rugs", "bikes", "pens", "towels", "cameras", "tents", "puzzles", "scarves", "desks",
}

const nCategories = len(categoryNames)

// categoryPrices are the typical prices of the categories: log2, in thousandths.
var categoryPrices = [nCategories]int{
	6000, 4700, 8600, 3900, 4300, 6900, 5300, 5200, 5600, 3400, 7100, 6500,
	6300, 3900, 5000, 6800, 8800, 3000, 4100, 8500, 7200, 4000, 4200, 7700,
}

var tagNames = [...]string{
	"red", "blue", "black", "green", "white", "small", "large", "light",
	"classic", "modern", "wooden", "cotton", "handmade", "eco", "gift", "travel",
}

// discounts are what products of a category on sale are reduced by, in per cent.
var discounts = [...]struct{ percent, octaves int }{{0, 0}, {10, -152}, {20, -322}, {30, -515}, {50, -1000}}

// product is what stands at one place of the shop's catalogue at present.
type product struct {
	id       uint64 // from 1; never given twice
	category int
	listed   int64 // since when
	until    int64 // when another product takes the place
	brand    int
	tags     [2]int
	price    int // log2, in thousandths
	cents    int
	reduced  int // index of discounts, when on sale
	base     int // the part of the quality that stays
	knot     int64
	quality  [2]int // what the quality walks between: at knot and at its end
}

// at returns the product at a place of the catalogue, brought up to the present.
func (s *simulation) at(place int) *product {
	p := &s.products[place]
	if s.now >= p.until {
		s.replace(p, place)
	}
	if s.now >= p.knot+qualityEvery {
		p.knot = s.now - (s.now-start)%qualityEvery
		for i := range p.quality {
			r := s.random(ofQuality, p.id, uint64((p.knot-start)/qualityEvery)+uint64(i))
			p.quality[i] = r.bell(300)
		}
	}
	return p
}

// replace lists a new product. Its life and identifier follow from the place and
// the time alone, and not from which events were drawn.
func (s *simulation) replace(p *product, place int) {
	r := s.random(ofLife, uint64(place), 0)
	days := 30 + r.below(60)
	life, phase := int64(days)*day, int64(r.below(24*days))*hour
	turn := (s.now - start + phase) / life

	id := uint64(place) + 1 + uint64(turn)*uint64(len(s.products))
	r = s.random(ofProduct, id, 0)
	*p = product{
		id:       id,
		category: place / s.perCategory,
		listed:   start + turn*life - phase,
		until:    start + (turn+1)*life - phase,
		brand:    r.below(nBrands),
		reduced:  r.below(len(discounts)),
		base:     r.bell(550),
		knot:     -qualityEvery,
	}
	p.tags[0] = r.below(len(tagNames))
	p.tags[1] = (p.tags[0] + 1 + r.below(len(tagNames)-1)) % len(tagNames)
	p.price = max(0, categoryPrices[p.category]+r.bell(800))
	p.cents = int(math.Round(100 * math.Exp2(float64(p.price)/1000)))
}

func (p *product) has(tag int) bool { return p.tags[0] == tag || p.tags[1] == tag }

// qualityAt returns the quality at a time between the product's two knots, in
// thousandths of η.
func (p *product) qualityAt(now int64) int {
	gone := int((now - p.knot) / minute)
	const all = int(qualityEvery / minute)
	return p.base + (p.quality[0]*(all-gone)+p.quality[1]*gone)/all
}

// onSale reports whether a category is on sale: a quarter of them each weekend.
func onSale(category int, now int64) bool {
	days := (now - start) / day // start is a Monday
	return days%7 >= 4 && int64(category%4) == days/7%4
}
